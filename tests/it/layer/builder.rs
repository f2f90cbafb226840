//! The layer's builder refuses settings that cannot work, or that contradict each other.

use bearer_auth::{BearerAuthLayer, BearerAuthLayerBuilder, ConfigError, StaticToken, resend};

fn builder() -> BearerAuthLayerBuilder {
    BearerAuthLayer::builder(StaticToken::new("token"))
}

fn error(builder: BearerAuthLayerBuilder) -> ConfigError {
    builder.build().unwrap_err()
}

#[test]
fn layer_without_an_api_is_refused() {
    let error = error(builder());
    assert_eq!(error.field(), "api");
    assert!(error.to_string().contains("api(base_url)"), "{error}");
}

#[test]
fn named_api_contradicts_any_api() {
    for contradiction in [
        builder().any_api().api("https://api.example/"),
        builder().api("https://api.example/").any_api(),
        builder().insecure_any_api().api("https://api.example/"),
        builder().any_api().insecure_any_api(),
        builder().any_api().any_api(),
    ] {
        assert_eq!(error(contradiction).field(), "any_api");
    }
}

#[test]
fn insecure_api_with_an_https_url_is_refused() {
    let error = error(builder().insecure_api("https://api.example/"));
    assert_eq!(error.field(), "insecure_api");
    assert!(error.to_string().contains("use `api`"), "{error}");
}

#[test]
fn plain_http_api_needs_insecure_api() {
    let error = error(builder().api("http://api.internal/"));
    assert_eq!(error.field(), "api");
    let several = builder()
        .insecure_api("http://one.internal/")
        .insecure_api("http://two.internal/")
        .api("https://api.example/");
    assert!(several.build().is_ok());
}

#[test]
fn base_url_with_a_dot_segment_is_refused() {
    for url in [
        "https://api.example/v1/..",
        "https://api.example/v1/%2E%2e/v2",
        "https://api.example/./v1",
    ] {
        assert_eq!(error(builder().api(url)).field(), "api", "{url}");
    }
}

#[test]
fn relative_to_another_origin_than_the_api_is_refused() {
    let contradiction = builder()
        .api("https://api.example/")
        .relative_to("https://other.example/");
    assert_eq!(error(contradiction).field(), "relative_to");
    let secure_only = builder().any_api().relative_to("http://mesh.internal/");
    assert_eq!(error(secure_only).field(), "relative_to");
}

#[test]
fn setting_given_twice_is_refused() {
    let twice = builder()
        .api("https://api.example/")
        .relative_to("https://api.example/")
        .relative_to("https://api.example/");
    assert_eq!(error(twice).field(), "relative_to");
    let twice = builder()
        .api("https://api.example/")
        .renew_on(|_, _| true)
        .renew_on(|_, _| false);
    assert_eq!(error(twice).field(), "renew_on");
    let twice = builder()
        .api("https://api.example/")
        .resend(resend::Off)
        .resend(resend::InMemory);
    assert_eq!(error(twice).field(), "resend");
}

#[test]
fn error_shows_no_credentials_of_a_url() {
    let url = "https://user:s3cr3t@api.example/";
    let unchecked = format!("{:?}", builder().api(url));
    let error = error(builder().api(url));
    for shown in [unchecked, format!("{error} {error:?}")] {
        assert!(!shown.contains("s3cr3t"), "{shown}");
    }
}
