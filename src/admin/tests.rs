//! The interface without sockets: who may what, and what is answered.

use super::*;
use crate::config::{Scope, Token};

#[test]
fn paths_have_a_description_with_their_answers() {
    let (_, api) = paths().split_for_parts();
    let told = serde_json::to_value(&api).unwrap();
    for path in [
        "/health",
        "/readyz",
        "/metrics",
        "/api/quota",
        "/api/quota/{tenant_id}",
        "/api/quota/increment",
        "/api/quota/check",
        "/api/quota/limits",
        "/api/quota/{tenant_id}/reset",
        "/buckets/{tenant}",
        "/api/v1/usage/history",
        "/api/v1/usage/stats",
        "/api/v1/alerts",
        "/api/v1/alerts/deliveries",
        "/api/v1/alerts/deliveries/retry",
        "/api/v1/alerts/receivers/{name}/test",
    ] {
        assert!(told["paths"][path].is_object(), "{path}");
    }
    let days = &told["paths"]["/api/v1/usage/history"]["get"]["parameters"][0];
    assert_eq!(
        (&days["in"], &days["required"]),
        (&"query".into(), &false.into()),
        "{days}"
    );
}

#[test]
fn local_users_are_let_in_by_who_they_are() {
    let access = Access {
        administrators: Some(77),
        daemon_uid: 5,
        open_to_readers: false,
        tokens: Vec::new(),
    };
    let may = |access: &Access, uid: u32, groups: &[u32]| {
        let who = access.local(uid, groups).ok()?;
        Some([Scope::Read, Scope::Quota, Scope::Admin].map(|scope| who.may(scope, Some("acme")).is_ok()))
    };
    assert_eq!(may(&access, 0, &[]), Some([true; 3]));
    assert_eq!(may(&access, 5, &[]), Some([true; 3]));
    assert_eq!(may(&access, 9, &[1, 77]), Some([true; 3]));
    assert_eq!(may(&access, 9, &[1]), None);
    let open = Access {
        open_to_readers: true,
        ..access
    };
    assert_eq!(may(&open, 9, &[1]), Some([true, false, false]));
}

#[test]
fn tokens_have_scopes_and_may_be_one_tenants() {
    let token = |name: &str, scopes: &[Scope], tenant: Option<&str>| Token {
        name: name.to_owned(),
        sha256: secret_hash(&format!("secret of {name}")),
        scopes: scopes.to_vec(),
        tenant: tenant.map(str::to_owned),
    };
    let access = Access {
        administrators: None,
        daemon_uid: 0,
        open_to_readers: true,
        tokens: vec![
            token("all", &[Scope::Read], None),
            token("acme", &[Scope::Quota], Some("acme")),
        ],
    };
    let who = |header: Option<&str>| access.bearer(header);
    for header in [
        None,
        Some(""),
        Some("Bearer"),
        Some("Bearer wrong"),
        Some("Basic secret of all"),
    ] {
        assert!(who(header).is_err(), "{header:?}");
    }
    let all = who(Some("Bearer secret of all")).unwrap();
    assert!(all.may(Scope::Read, None).is_ok() && all.may(Scope::Quota, None).is_err());
    let acme = who(Some("bearer secret of acme")).unwrap();
    assert!(acme.may(Scope::Quota, Some("acme")).is_ok());
    for other in [None, Some("globex")] {
        assert!(acme.may(Scope::Quota, other).is_err(), "{other:?}");
    }
    let refused = acme.may(Scope::Admin, Some("acme")).unwrap_err();
    assert!(!serde_json::to_string(&refused).unwrap().contains("secret"));
}
