-- What an instruction leads to is looked for by device and cookie, and what follows from
-- a key set by that one, which may be forgotten only where it is nobody's: joins that carry
-- an instruction, devices that obeyed one, and checks would read all of these otherwise.
CREATE INDEX key_set_rekeyed ON key_set (device, cookie) WHERE cookie IS NOT NULL;
CREATE INDEX key_set_parent ON key_set (parent) WHERE parent IS NOT NULL;
CREATE INDEX rekey_candidate_key_set ON rekey_candidate (key_set);
CREATE INDEX device_key_set ON device (key_set);

-- What goes to a Join Server and is open, hand-overs that are under way, and what is
-- parked: where a pin ends, or another key is pinned, these are looked through.
CREATE INDEX rekey_to ON rekey (join_server, id) WHERE ended_at IS NULL;
CREATE INDEX passage_open ON passage (rekey) WHERE state IN ('waiting', 'parked', 'taken');
CREATE INDEX arrival_parked_id ON arrival (id) WHERE state = 'parked';
