//! The pages of oidc-provider's development mode, as a browser goes through them: plain forms.

use std::collections::BTreeMap;

use http::{StatusCode, header};
use url::Url;

/// Signs in at a login's URL, agrees, and comes back with the URL of the callback.
pub(crate) async fn sign_in(url: &str) -> String {
    let browser = reqwest::Client::builder().no_proxy();
    let browser = browser.redirect(reqwest::redirect::Policy::none());
    let browser = browser.build().unwrap();
    let mut cookies = BTreeMap::new();
    let mut url = Url::parse(url).unwrap();
    let mut forms = ["prompt=login&login=me&password=mine", "prompt=consent"].into_iter();
    while url.path() != "/callback" {
        let request = if url.path().starts_with("/interaction/") {
            let form = forms.next().expect("two pages, and no more");
            let request = browser.post(url.clone()).body(form);
            request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        } else {
            browser.get(url.clone())
        };
        let jar: Vec<_> = cookies.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let request = request.header(header::COOKIE, jar.join("; "));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::SEE_OTHER, "{}", url.path());
        for cookie in response.headers().get_all(header::SET_COOKIE) {
            let cookie = cookie.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = cookie.split_once('=').unwrap();
            cookies.insert(name.to_owned(), value.to_owned());
        }
        let location = response.headers()[header::LOCATION].to_str().unwrap();
        url = url.join(location).unwrap();
    }
    url.into()
}
