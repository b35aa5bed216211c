//! What passes the gate is a branch to git too, and the names the runner makes always pass.
#![no_main]

use archon_awo_fuzz::domain::{BranchName, WorkOrderId, branch_name, slug};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| {
    let (name, id) = input;
    if let Ok(branch) = name.parse::<BranchName>() {
        assert_eq!(branch.as_str(), name);
        assert!(git2::Reference::is_valid_name(&branch.full_ref()), "{name:?}");
        assert!(git2::Branch::name_is_valid(name).unwrap_or(false), "{name:?}");
        assert!(!name.starts_with('-') && !name.contains(".."), "{name:?}");
    }
    let slug = slug(name);
    assert!(!slug.is_empty() && slug.len() <= 40, "{slug:?}");
    if let Ok(order) = id.parse::<WorkOrderId>() {
        let made = branch_name(name, &order, &std::collections::BTreeSet::new());
        assert_eq!(made.as_str().parse::<BranchName>().as_ref(), Ok(&made));
        assert!(made.as_str().ends_with(order.as_str()), "{made}");
        assert!(git2::Reference::is_valid_name(&made.full_ref()), "{made}");
    }
});
