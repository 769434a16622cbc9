-- Unknown outcomes are counted: those that close a key apart from those that close none.
CREATE INDEX unknown_ones ON exchanges (holds, seq) WHERE state = 2;
