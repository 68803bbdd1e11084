-- Number held for refusals.
SELECT 1;
