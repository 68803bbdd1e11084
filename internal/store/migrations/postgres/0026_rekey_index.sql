-- What an instruction leads to is looked for by device and cookie, and what follows from
-- a key set by that one, which may be forgotten only where it is nobody's: joins that carry
-- an instruction, devices that obeyed one, and checks would read all of these otherwise.
CREATE INDEX key_set_rekeyed ON key_set (device, cookie) WHERE cookie IS NOT NULL;
CREATE INDEX key_set_parent ON key_set (parent) WHERE parent IS NOT NULL;
CREATE INDEX rekey_candidate_key_set ON rekey_candidate (key_set);
CREATE INDEX device_key_set ON device (key_set);
