-- One row a claim whose request names its key where its provider can be asked for it.
CREATE TABLE tags (
    seq INTEGER PRIMARY KEY,            -- the exchange's
    place TEXT NOT NULL                 -- where in the request the key stands
);
CREATE TRIGGER tag_goes AFTER DELETE ON exchanges
BEGIN
    DELETE FROM tags WHERE seq = OLD.seq;
END;
