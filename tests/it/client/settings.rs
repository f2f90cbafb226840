//! The settings that every client builder has.

use bearer_auth::{ClientCredentials, ClientCredentialsBuilder};

fn builder() -> ClientCredentialsBuilder {
    ClientCredentials::builder("https://as.example/token", "client-id", "client-secret")
}

fn refused(builder: ClientCredentialsBuilder) -> &'static str {
    builder.build().unwrap_err().field()
}

#[test]
fn invalid_header_or_alias_is_refused_without_its_value() {
    for (name, value) in [
        ("x-tenant", "canary\r\nx: y"),
        ("x-tenant", "canary\0"),
        ("x tenant", "canary"),
        ("Host", "canary"),
        ("content-type", "canary"),
    ] {
        let source = builder().header(name, value);
        let error = source.build().unwrap_err();
        assert_eq!(error.field(), "header", "{name}");
        assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
    }
    let twice = builder().header("x-tenant", "1").header("X-Tenant", "2");
    assert_eq!(refused(twice), "header");
    let alias = builder().bearer_alias(" ");
    assert_eq!(refused(alias), "bearer_alias");
}
