-- Whether somebody's OpenID provider vouches for their address. Until now addresses
-- of people who have an account at one came from there, verified, and those of
-- all others from their invitations.
ALTER TABLE person ADD COLUMN email_verified INTEGER NOT NULL DEFAULT 0 CHECK (email_verified IN (0, 1));
UPDATE person SET email_verified = 1 WHERE email <> '' AND EXISTS (SELECT 1 FROM identity WHERE person = person.id);
