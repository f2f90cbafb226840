//! [`TokenCacheBuilder`]: the settings of a cache.

use std::{borrow::Cow, sync::Arc, time::Duration};

use super::{
    lifecycle,
    shared::{Settings, Shared, TokenCache},
};
use crate::{
    clock::Clock,
    event::{Event, Events},
    sync::{ArcSwap, Handle, Mutex},
    token::{ErasedSource, Forget, TokenSource, WeakTokenCache},
};

impl TokenCache {
    /// Returns a cache with the default settings.
    pub fn new(source: impl TokenSource) -> Self {
        Self::builder(source).build()
    }

    /// Returns a builder for a cache with other settings.
    pub fn builder(source: impl TokenSource) -> TokenCacheBuilder {
        TokenCacheBuilder::new(source)
    }
}

impl<T: TokenSource> From<T> for TokenCache {
    fn from(source: T) -> Self {
        Self::new(source)
    }
}

/// The settings of a [`TokenCache`]: see [`TokenCache::builder`].
#[derive(Debug)]
#[must_use]
pub struct TokenCacheBuilder {
    source: Arc<dyn ErasedSource>,
    settings: Settings,
}

impl TokenCacheBuilder {
    fn new(source: impl TokenSource) -> Self {
        Self {
            source: Arc::new(source),
            settings: Settings {
                clock: Clock::default(),
                runtime: None,
                default_lifetime: None,
                safety_margin: Self::SAFETY_MARGIN,
                fetch_timeout: Self::FETCH_TIMEOUT,
                events: Events::default(),
            },
        }
    }

    /// The default of [`safety_margin`](Self::safety_margin).
    pub const SAFETY_MARGIN: Duration = lifecycle::SAFETY_MARGIN;
    /// The default of [`fetch_timeout`](Self::fetch_timeout).
    pub const FETCH_TIMEOUT: Duration = Duration::from_secs(30);

    /// Sets the runtime for token requests. Its timer must be enabled (tokio panics without it), and
    /// the runtime must be driven while callers wait. Defaults to the runtime of the caller that
    /// needs the token.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.settings.runtime = Some(runtime);
        self
    }

    /// Sets the clock. Defaults to the system clock.
    pub fn clock(mut self, clock: impl Into<Clock>) -> Self {
        self.settings.clock = clock.into();
        self
    }

    /// Sets the lifetime of tokens without `expires_in` (RFC 6749 §5.1). By default such a token is
    /// used until the API rejects it.
    pub fn default_lifetime(mut self, lifetime: Duration) -> Self {
        self.settings.default_lifetime = Some(lifetime);
        self
    }

    /// Sets the safety margin: how long before expiry callers wait for a new token. They wait a second
    /// at most, then use the cached one. Capped at a tenth of the lifetime. Defaults to
    /// [`SAFETY_MARGIN`](Self::SAFETY_MARGIN).
    pub fn safety_margin(mut self, margin: Duration) -> Self {
        self.settings.safety_margin = margin;
        self
    }

    /// Sets the timeout of a token request, all attempts included. Defaults to
    /// [`FETCH_TIMEOUT`](Self::FETCH_TIMEOUT).
    pub fn fetch_timeout(mut self, timeout: Duration) -> Self {
        self.settings.fetch_timeout = timeout;
        self
    }

    /// Sets the cache's name in logs and metrics. Give each cache its own. Defaults to an empty name.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.settings.events.name = name.into();
        self
    }

    /// Sets a callback for each [`Event`], in place of the previous callback. The task or caller that
    /// caused the event calls it, so it must be quick. A panic in the callback loses that event only.
    /// Events also reach `tracing` and `metrics`, if the features of these names are enabled.
    ///
    /// ```
    /// use bearer_auth::{Event, StaticToken, TokenCache};
    ///
    /// let cache = TokenCache::builder(StaticToken::new("token"))
    ///     .on_event(|event| {
    ///         if let Event::Failed { error, .. } = event {
    ///             eprintln!("no token: {error}");
    ///         }
    ///     })
    ///     .build();
    /// ```
    pub fn on_event(mut self, listener: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.settings.events.listener = Some(Arc::new(listener));
        self
    }

    /// Builds the cache. Does no I/O.
    pub fn build(self) -> TokenCache {
        let shared = Arc::new(Shared {
            snapshot: ArcSwap::default(),
            state: Mutex::default(),
            keeper: Mutex::default(),
            source: self.source,
            settings: self.settings,
        });
        let forget: Arc<dyn Forget> = shared.clone();
        shared
            .source
            .attach(WeakTokenCache::new(Arc::downgrade(&forget)));
        TokenCache(shared)
    }
}
