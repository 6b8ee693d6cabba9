//! The operator's guide explains every reason for which a call can fail.

use std::collections::BTreeSet;
use std::path::Path;

use jackfield_domain::login::LoginReason;

/// The texts in quotation marks that are made of capitals.
fn reasons(source: &str) -> BTreeSet<String> {
    let quoted = source.split('"').skip(1).step_by(2);
    let is_reason =
        |text: &&str| text.len() > 3 && text.chars().all(|c| c.is_ascii_uppercase() || c == '_' || c == '8');
    quoted.filter(is_reason).map(str::to_owned).collect()
}

#[test]
fn every_reason_is_in_the_guide() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guide = std::fs::read_to_string(root.join("../../deploy/guide/connectors.md")).unwrap();
    let explained: BTreeSet<String> = guide.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    for source in ["src/error.rs", "src/login/mod.rs", "src/license/fault.rs"] {
        let reasons = reasons(&std::fs::read_to_string(root.join(source)).unwrap());
        assert!(reasons.len() > 5, "{reasons:?}");
        let missing: Vec<_> = reasons.difference(&explained).collect();
        assert!(missing.is_empty(), "{source}: {missing:?}");
    }
    let missing: Vec<_> = LoginReason::NAMES.iter().filter(|reason| !explained.contains(**reason)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
