CREATE TABLE planets (place int PRIMARY KEY, name text);
