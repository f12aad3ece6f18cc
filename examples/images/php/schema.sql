CREATE TABLE guests (name TEXT);
INSERT INTO guests VALUES ('first guest');
