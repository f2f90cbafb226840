//! Guides.

/// One module for each page. The pages are files in `docs`, which a forge shows as well: their links to
/// each other are references such as `[service.md]`, defined at the end of each file. The definitions
/// here come before those, so that they count in rustdoc.
///
/// The code of the pages is compiled with all features.
macro_rules! pages {
    ($($(#[$summary:meta])+ $name:ident = $file:literal;)+) => {$(
        $(#[$summary])+
        ///
        /// [faults.md]: crate::docs::faults
        /// [grpc.md]: crate::docs::grpc
        /// [limitations.md]: crate::docs::limitations
        /// [many-tenants.md]: crate::docs::many_tenants
        /// [observability.md]: crate::docs::observability
        /// [order-of-layers.md]: crate::docs::order_of_layers
        /// [performance.md]: crate::docs::performance
        /// [program.md]: crate::docs::program
        /// [proxies-and-private-cas.md]: crate::docs::proxies_and_private_cas
        /// [redis.md]: crate::docs::redis
        /// [service.md]: crate::docs::service
        /// [signing-out.md]: crate::docs::signing_out
        /// [testing.md]: crate::docs::testing
        /// [web-application.md]: crate::docs::web_application
        #[cfg_attr(any(not(doctest), feature = "full"), doc = include_str!($file))]
        pub mod $name {}
    )+};
}

pages! {
    /// A service gets tokens in its own name: client credentials.
    service = "../docs/service.md";

    /// Users sign in to a web application: authorization code.
    web_application = "../docs/web-application.md";

    /// A user signs in to a program on their machine.
    program = "../docs/program.md";

    /// Logout, revocation, and what other processes still have.
    signing_out = "../docs/signing-out.md";

    /// Processes share tokens and sessions in Redis.
    redis = "../docs/redis.md";

    /// One process, many clients of one or several servers.
    many_tenants = "../docs/many-tenants.md";

    /// How token requests reach the authorization server.
    proxies_and_private_cas = "../docs/proxies-and-private-cas.md";

    /// Tokens on the requests of a tonic client.
    grpc = "../docs/grpc.md";

    /// Retries, timeouts, limits and redirects around the layer.
    order_of_layers = "../docs/order-of-layers.md";

    /// Tests without a real authorization server, and without waiting.
    testing = "../docs/testing.md";

    /// Events, logs and metrics.
    observability = "../docs/observability.md";

    /// What a request gets when something fails.
    faults = "../docs/faults.md";

    /// What a request pays for its token.
    performance = "../docs/performance.md";

    /// What this crate does not do.
    limitations = "../docs/limitations.md";
}
