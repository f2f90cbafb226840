//! The settings that every client builder has.

use bearer_auth::{
    AuthorizationCode, AuthorizationCodeBuilder, ClientCredentials, ClientCredentialsBuilder,
    ConfigError, JwtBearer, JwtBearerBuilder, SigningKey,
};

const TOKEN_URL: &str = "https://as.example/token";

fn client_credentials() -> ClientCredentialsBuilder {
    ClientCredentials::builder(TOKEN_URL, "client-id", "client-secret")
}

fn jwt_bearer() -> JwtBearerBuilder {
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    JwtBearer::builder(TOKEN_URL, SigningKey::from_pem(key).unwrap()).issuer("issuer")
}

fn authorization_code() -> AuthorizationCodeBuilder {
    AuthorizationCode::builder("https://as.example/authorize", TOKEN_URL, "client-id")
}

/// Builds each client with the same settings, and returns the errors.
macro_rules! build {
    ($($setter:ident($($argument:expr),*)).+) => {
        [
            client_credentials().$($setter($($argument),*)).+.build().err(),
            jwt_bearer().$($setter($($argument),*)).+.build().err(),
            authorization_code().$($setter($($argument),*)).+.build().err(),
        ]
    };
}

#[track_caller]
fn assert_refused(errors: [Option<ConfigError>; 3], field: &str) {
    for error in errors {
        let error = error.unwrap();
        assert_eq!(error.field(), field);
        assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
    }
}

#[test]
fn valid_header_and_alias_are_accepted() {
    let errors = build!(
        header("x-tenant", "1")
            .header("x-user", "1")
            .bearer_alias("BearerToken")
    );
    assert!(errors.iter().all(Option::is_none), "{errors:?}");
}

#[test]
fn invalid_header_is_refused_without_its_value() {
    for (name, value) in [
        ("x-tenant", "canary\r\nx: y"),
        ("x-tenant", "canary\0"),
        ("x tenant", "canary"),
        ("Host", "canary"),
        ("content-type", "canary"),
        ("authorization", "canary"),
    ] {
        assert_refused(build!(header(name, value)), "header");
    }
}

#[test]
fn header_given_twice_is_refused() {
    let errors = build!(header("x-tenant", "canary").header("X-Tenant", "canary"));
    assert_refused(errors, "header");
}

#[test]
fn empty_bearer_alias_is_refused() {
    assert_refused(build!(bearer_alias(" ")), "bearer_alias");
}
