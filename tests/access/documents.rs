//! docs/SECURITY-MODEL.md names a test for each threat. Each of them is there.

use std::{fs, path::Path};

/// Whether a test or a file of tests of this name is there: `access::matrix::a_test`,
/// `access::matrix`, `auth::rules::tests::a_test`.
fn is_there(name: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut parts: Vec<_> = name.split("::").collect();
    let folder = if root.join("tests").join(parts[0]).is_dir() { "tests" } else { "src" };
    let file =
        |parts: &[&str]| fs::read_to_string(root.join(folder).join(parts.join("/")).with_extension("rs"));
    if file(&parts).is_ok() {
        return true;
    }
    let test = parts.pop().unwrap();
    let is_in = |parts: &[&str]| file(parts).is_ok_and(|text| text.contains(&format!("fn {test}(")));
    is_in(&parts) || (parts.pop() == Some("tests") && is_in(&parts))
}

#[test]
fn each_test_that_the_security_model_names_is_there() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/SECURITY-MODEL.md");
    let page = fs::read_to_string(page).unwrap();
    let threats = page.split_once("## Threats").unwrap().1;
    let shown: Vec<_> = threats.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(shown.len() > 20, "{}", shown.len());
    for row in shown {
        let by = row.trim_end_matches('|').rsplit('|').next().unwrap().trim();
        assert!(by == "the same matrix" || by.contains('`'), "{row}");
        for name in by.split('`').skip(1).step_by(2) {
            assert!(is_there(name), "there is no {name}");
        }
    }
    assert!(!is_there("access::matrix::no_such_test") && !is_there("access::nothing"));
}
