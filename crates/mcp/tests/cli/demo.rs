//! What `patchwire demo` says when it can't begin. The demo itself is tested with the whole path.

use crate::user::User;

#[test]
fn a_demo_without_python_says_so() {
    let refused = User::new().run_under("demo", &[("PATH", "")]).expect(2);
    assert!(refused.stderr.contains("python3"), "{}", refused.stderr);
    assert!(refused.stdout.is_empty());
}
