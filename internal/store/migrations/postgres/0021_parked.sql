-- What other Join Servers handed over and nobody accepted yet: how much it is of each
-- for an organisation, and since when.
CREATE INDEX arrival_parked ON arrival (join_server, org) WHERE state = 'parked';
CREATE INDEX arrival_parked_since ON arrival (changed_at, id) WHERE state = 'parked';
