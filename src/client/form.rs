//! [`Form`]: the form-encoded parameters of a token request.

use std::borrow::Cow;

use url::form_urlencoded::byte_serialize;
use zeroize::Zeroizing;

/// `application/x-www-form-urlencoded` (RFC 6749 Appendix B), wiped when dropped.
#[derive(Default)]
pub(crate) struct Form(Vec<(Cow<'static, str>, Zeroizing<String>)>);

impl Form {
    /// Adds a parameter. An empty value is left out, as RFC 6749 §3.2 treats it as absent.
    pub(crate) fn push(&mut self, name: impl Into<Cow<'static, str>>, value: &str) {
        if !value.is_empty() {
            let value = Zeroizing::new(value.to_owned());
            self.0.push((name.into(), value));
        }
    }

    /// Adds a parameter unless the form has one of that name.
    pub(crate) fn push_missing(&mut self, name: &'static str, value: &str) {
        if !self.has(name) {
            self.push(name, value);
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    pub(crate) fn encode(&self) -> Zeroizing<String> {
        // Each byte becomes three at most. Reallocation would leave a copy that is not wiped.
        let max_len =
            |(name, value): &(Cow<'_, str>, Zeroizing<String>)| 2 + 3 * (name.len() + value.len());
        let capacity = self.0.iter().map(max_len).sum();
        let mut encoded = Zeroizing::new(String::with_capacity(capacity));
        for (name, value) in &self.0 {
            if !encoded.is_empty() {
                encoded.push('&');
            }
            byte_serialize(name.as_bytes()).for_each(|piece| encoded.push_str(piece));
            encoded.push('=');
            byte_serialize(value.as_bytes()).for_each(|piece| encoded.push_str(piece));
        }
        encoded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(pairs: &[(&'static str, &str)]) -> String {
        let mut form = Form::default();
        for (name, value) in pairs {
            form.push(*name, value);
        }
        form.encode().as_str().to_owned()
    }

    #[test]
    fn p11_p12_values_are_form_encoded_as_in_appendix_b() {
        assert_eq!(encode(&[("k", " %&+£€")]), "k=+%25%26%2B%C2%A3%E2%82%AC");
        assert_eq!(encode(&[("k", "ünï")]), "k=%C3%BCn%C3%AF");
        assert_eq!(encode(&[("k", "aZ09*-._~")]), "k=aZ09*-._%7E");
    }

    #[test]
    fn p5_empty_parameter_is_left_out() {
        assert_eq!(encode(&[("scope", ""), ("a", "b")]), "a=b");
    }

    #[test]
    fn repeated_parameters_keep_their_order() {
        assert_eq!(
            encode(&[("resource", "https://a"), ("resource", "https://b/")]),
            "resource=https%3A%2F%2Fa&resource=https%3A%2F%2Fb%2F"
        );
    }
}
