INSERT INTO planets VALUES (1, 'Mercury'), (2, 'Venus'), (3, 'Earth');
