//! Holds the table "Modules and who may import whom" of `ARCHITECTURE.md` against the source.
//!
//! A module is a file or folder of `src/`. Every path that starts with `crate::` counts, in `use` lines and elsewhere,
//! except in tests: a test may build on whatever it likes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const TABLE: &str = "../ARCHITECTURE.md";
const HEADING: &str = "## Modules and who may import whom";

/// One row: a module's level, and what it may import.
struct Row {
    level: u32,
    imports: BTreeSet<String>,
}

/// Reads the rows `| level | modules | what | imports |`; modules and imports are words in backquotes.
fn rows() -> BTreeMap<String, Row> {
    let text = fs::read_to_string(TABLE).expect("ARCHITECTURE.md stands at the top");
    let (_, section) = text.split_once(HEADING).expect("the section is there");
    let section = section.split("\n## ").next().unwrap_or_default();
    let words = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
    let mut rows = BTreeMap::new();
    for line in section.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
        let Some(Ok(level)) = cells.first().map(|cell| cell.trim().parse()) else { continue };
        for module in words(cells[1]) {
            let row = Row { level, imports: words(cells[3]) };
            assert!(rows.insert(module.clone(), row).is_none(), "`{module}` has two rows");
        }
    }
    rows
}

/// Source files by module, tests left out.
fn modules() -> BTreeMap<String, Vec<PathBuf>> {
    let mut modules = BTreeMap::<String, Vec<PathBuf>>::new();
    for entry in walkdir::WalkDir::new("src") {
        let path = entry.expect("readable").into_path();
        let inside = path.strip_prefix("src").expect("below src");
        let is_test = inside.iter().any(|part| ["tests", "tests.rs", "testing.rs"].iter().any(|name| part == *name));
        if is_test || path.extension().is_none_or(|extension| extension != "rs") || inside == Path::new("lib.rs") {
            continue;
        }
        let first = inside.iter().next().and_then(|part| part.to_str()).expect("a name");
        modules.entry(first.trim_end_matches(".rs").to_owned()).or_default().push(path);
    }
    modules
}

/// Code without comments and without the tests at the end of the file.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("source is UTF-8");
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The first names of all paths that start with `crate::`.
fn imports(code: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(is_name) {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.insert(rest.split(|c| !is_name(c)).next().unwrap_or_default().to_owned());
            continue;
        };
        let mut depth = 0_usize;
        let mut item = String::new();
        for c in group.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    names.insert(item.trim().split(|c| !is_name(c)).next().unwrap_or_default().to_owned());
                    item.clear();
                    if c == '}' {
                        break;
                    }
                }
                c if depth == 0 => item.push(c),
                _ => {}
            }
        }
    }
    names.remove("");
    names
}

/// Where the names that `lib.rs` exports come from: `Digest` is `digest`.
fn exported() -> BTreeMap<String, String> {
    let lib = code(Path::new("src/lib.rs"));
    let mut exported = BTreeMap::new();
    for statement in lib.split("pub use ").skip(1).filter_map(|rest| rest.split(';').next()) {
        let Some((module, names)) = statement.split_once("::{") else { continue };
        for name in names.trim_end_matches('}').split(',').map(str::trim) {
            exported.insert(name.to_owned(), module.trim_start_matches("crate::").to_owned());
        }
    }
    exported
}

#[test]
fn modules_import_what_the_table_allows() {
    let (rows, modules, exported) = (rows(), modules(), exported());
    let mut problems = Vec::new();
    for (module, files) in &modules {
        let Some(row) = rows.get(module) else {
            problems.push(format!("`{module}` has no row"));
            continue;
        };
        for file in files {
            for name in imports(&code(file)) {
                let import = exported.get(&name).unwrap_or(&name);
                if modules.contains_key(import) && import != module && !row.imports.contains(import) {
                    problems.push(format!(
                        "{} imports `{import}`, which the row of `{module}` (level {}) does not list",
                        file.display(),
                        row.level
                    ));
                }
            }
        }
    }
    problems.extend(rows.keys().filter(|row| !modules.contains_key(*row)).map(|row| format!("there is no `{row}`")));
    assert!(
        problems.is_empty(),
        "{}\n\nMove the code to where it may import this, or change that row of the table in ARCHITECTURE.md \
         and say in the commit why the module needs to know the other.",
        problems.join("\n")
    );
}

#[test]
fn the_table_points_downward() {
    let rows = rows();
    for (module, row) in &rows {
        for import in &row.imports {
            let below = rows.get(import).unwrap_or_else(|| panic!("`{module}` lists `{import}`, which has no row"));
            assert!(
                below.level < row.level,
                "`{module}` (level {}) lists `{import}` (level {})",
                row.level,
                below.level
            );
        }
    }
}

#[test]
fn paths_are_found_wherever_they_stand() {
    let code = "use crate::a::B;\nuse crate::{c, d::{E, f::G}, h::I};\nfn x() { crate::j::k(); my_crate::no(); }";
    let names = imports(code);
    assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), ["a", "c", "d", "h", "j"]);
}
