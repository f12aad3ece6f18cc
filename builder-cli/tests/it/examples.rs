//! Examples stay short enough to be read. That they work is tested where the commands they use are.

use std::path::Path;

#[test]
fn examples_are_short() {
    for file in ["self/Dockerfile", "debian-app/Dockerfile", "debian-app/greet.c", "embed/src/main.rs"] {
        let text = std::fs::read_to_string(Path::new("../examples").join(file)).unwrap();
        assert!(text.lines().count() < 60, "{file} has {} lines", text.lines().count());
    }
}
