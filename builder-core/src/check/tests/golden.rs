//! Whole reports: `testdata/check/CASE/Dockerfile` with `text`, `json` and `sarif` beside it. `UPDATE=1` writes them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::*;

fn cases() -> Vec<PathBuf> {
    let mut cases: Vec<PathBuf> =
        fs::read_dir("../testdata/check").unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

fn report_of(case: &Path) -> CheckReport {
    let text = fs::read_to_string(case.join("Dockerfile")).unwrap();
    let mut request = request(&text);
    request.context = ContextSource::Directory(case.join("context"));
    check(&request, None).unwrap()
}

fn pretty(value: &Value) -> String {
    format!("{}\n", serde_json::to_string_pretty(value).unwrap())
}

#[test]
fn golden_reports() {
    for case in cases() {
        let report = report_of(&case);
        let forms = [
            ("report.txt", report.to_text()),
            ("report.json", pretty(&report.to_json())),
            ("report.sarif", pretty(&report.to_sarif())),
        ];
        for (name, got) in forms {
            let path = case.join(name);
            if std::env::var_os("UPDATE").is_some() {
                fs::write(&path, &got).unwrap();
            }
            let want = fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(got, want, "{}", path.display());
        }
    }
}

/// What the schema of SARIF 2.1.0 asks for of what we write.
#[test]
fn sarif_is_what_its_schema_wants() {
    for case in cases() {
        let report = report_of(&case);
        let sarif = report.to_sarif();
        assert_eq!(sarif["version"], "2.1.0");
        let run = &sarif["runs"][0];
        let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
        for rule in rules {
            assert!(rule["id"].is_string() && rule["shortDescription"]["text"].is_string(), "{rule}");
            assert!(rule.get("helpUri").is_none_or(|uri| uri.as_str().is_some_and(|uri| uri.starts_with("https://"))));
        }
        assert!(run["tool"]["driver"]["name"].is_string());
        assert!(["utf16CodeUnits", "unicodeCodePoints"].contains(&run["columnKind"].as_str().unwrap()));
        let results = run["results"].as_array().unwrap();
        assert_eq!(results.len(), report.findings().len() + report.errors().len());
        for result in results {
            assert!(["none", "note", "warning", "error"].contains(&result["level"].as_str().unwrap()));
            assert!(!result["message"]["text"].as_str().unwrap().is_empty());
            let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
            assert_eq!(rules[index]["id"], result["ruleId"], "the index leads to the rule");
            let physical = &result["locations"][0]["physicalLocation"];
            let artifact = usize::try_from(physical["artifactLocation"]["index"].as_u64().unwrap()).unwrap();
            assert_eq!(run["artifacts"][artifact]["location"]["uri"], physical["artifactLocation"]["uri"]);
            let region = &physical["region"];
            let number = |name: &str| region[name].as_u64().unwrap();
            assert!(number("startLine") >= 1 && number("startColumn") >= 1, "{region}");
            assert!(number("endLine") >= number("startLine"), "{region}");
        }
    }
}
