//! The code in the README's table of providers is the code below, which compiles and runs.

use bearer_auth::{
    AuthorizationCode, ClientAuth, ClientCredentials, ConfigError, Issuer, JwtBearer, SigningKey,
    provider,
};

/// The lines of the table, verbatim.
#[rustfmt::skip]
fn all(pem: &str) -> Result<(), ConfigError> {
    let (id, secret, callback, kid) = ("id", "secret", "https://app.example/cb", "kid");
    let token_url = "https://idp.example/token";
    {
        let source = ClientCredentials::builder(token_url, id, secret)
            .scope("orders:read")
            .build()?;
        drop(source);
        let source = ClientCredentials::discover("https://idp.example", id, secret)
            .scope("orders:read")
            .build()?;
        drop(source);
        let auth = AuthorizationCode::discover("https://idp.example", id)
            .redirect_uri(callback).scope("openid offline_access")
            .build()?;
        drop(auth);
    }
    {
        let source = ClientCredentials::discover("https://host/realms/orders", id, secret)
            .build()?;
        drop(source);
        let source = ClientCredentials::discover("https://tenant.auth0.com/", id, secret)
            .audience("https://api.example.com/").build()?;
        drop(source);
        let pool = "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbCdEfGhI";
        let issuer = Issuer::new(pool).metadata_url(format!("{pool}/.well-known/openid-configuration"));
        let source = ClientCredentials::discover(issuer, id, secret).scope("orders/read").build()?;
        drop(source);
    }
    {
        let (base, auth_url, access_token_url) = ("https://sc.example/x", "https://sc.example/a", "https://sc.example/t");
        let source = provider::smart_completions(base, id, secret)
            .build()?;
        drop(source);
        let auth = provider::smart_completions_sign_in(auth_url, access_token_url, id)
            .redirect_uri(callback).scope("openid ingr.api").build()?;
        drop(auth);
        let (api_id, scope) = ("api", "openid api");
        let source = provider::smart_api_manager("https://sam.example/sam", id, secret)
            .scope(api_id).build()?;
        drop(source);
        let auth = provider::smart_api_manager_sign_in("https://sam.example/sam", id)
            .redirect_uri(callback).scope(scope).build()?;
        drop(auth);
    }
    {
        let okta = provider::okta_server("https://dev-1.okta.com", "default");
        let auth = AuthorizationCode::discover(okta, id)
            .redirect_uri(callback).scope("openid offline_access").build()?;
        drop(auth);
        let okta = provider::okta("https://dev-1.okta.com");
        let key = ClientAuth::private_key_jwt(SigningKey::from_pem(pem)?.key_id(kid));
        let source = ClientCredentials::discover(okta, id, "").client_auth(key).scope("okta.users.read").build()?;
        drop(source);
        let entra = provider::entra_id("https://login.microsoftonline.com/<tenant id>");
        let source = ClientCredentials::discover(entra, id, secret)
            .scope("https://graph.microsoft.com/.default").build()?;
        drop(source);
    }
    {
        let client_email = "robot@project.iam.gserviceaccount.com";
        let key = SigningKey::from_pem(pem)?.key_id(kid);
        let source = JwtBearer::builder("https://oauth2.googleapis.com/token", key)
            .issuer(client_email).claim("scope", "https://www.googleapis.com/auth/cloud-platform")
            .build()?;
        drop(source);
    }
    let source = provider::usage_engine(token_url, id, secret).audience("https://usage.example/api/")
        .build()?;
    drop(source);
    let source = provider::adoxx("https://host:8000/ADOXX", id, secret)
        .scope("myScope")
        .build()?;
    drop(source);
    Ok(())
}

#[test]
fn code_of_the_provider_table_builds() {
    let key = rcgen::KeyPair::generate().unwrap();
    all(&key.serialize_pem()).unwrap();
}

#[test]
fn provider_table_has_the_code_that_is_built_here() {
    let ours = include_str!("readme_providers.rs");
    let readme = include_str!("../../../README.md");
    let (_, section) = readme
        .split_once("\n## Your provider\n")
        .expect("the section");
    let (section, _) = section.split_once("\n## ").unwrap();
    let rows: Vec<_> = section
        .lines()
        .filter(|line| line.starts_with("| "))
        .collect();
    let mut lines = 0;
    for row in rows.iter().skip(1) {
        let code = row.splitn(3, '|').nth(2).unwrap();
        for piece in code.split('`').skip(1).step_by(2) {
            let is_ours = ours.lines().any(|line| line.trim() == piece.trim());
            assert!(is_ours, "{piece}");
            lines += 1;
        }
    }
    assert!(lines > 30, "{lines}");
}
