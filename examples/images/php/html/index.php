<?php
$db = new PDO('sqlite:/var/lib/app/guests.db');
foreach ($db->query('SELECT name FROM guests') as $row) {
    echo '<p>Hello, ', htmlspecialchars($row['name']), "</p>\n";
}
