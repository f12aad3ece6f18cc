read -r version </app/version
echo "main of $version"
