//! [`TokenCacheBuilder`]: the settings of a cache.

use std::{borrow::Cow, sync::Arc, time::Duration};

use super::{Settings, Shared, TokenCache, WeakTokenCache, lifecycle};
use crate::{
    clock::Clock,
    event::{Event, Events},
    sync::{ArcSwap, Handle, Mutex},
    token::{ErasedSource, TokenSource},
};

/// See [`TokenCache::builder`].
#[derive(Debug)]
#[must_use]
pub struct TokenCacheBuilder {
    source: Arc<dyn ErasedSource>,
    settings: Settings,
}

impl TokenCacheBuilder {
    pub(super) fn new(source: impl TokenSource) -> Self {
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

    /// The runtime that token requests run on, with its timer enabled (tokio panics without). It
    /// has to be driven while callers wait. Default: the runtime of the caller that needs the
    /// token.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.settings.runtime = Some(runtime);
        self
    }

    /// Where the time is read. Default: the system's clocks.
    pub fn clock(mut self, clock: impl Into<Clock>) -> Self {
        self.settings.clock = clock.into();
        self
    }

    /// The lifetime of tokens whose server does not say (no `expires_in`, RFC 6749 §5.1). Default:
    /// they are used until the API refuses them.
    pub fn default_lifetime(mut self, lifetime: Duration) -> Self {
        self.settings.default_lifetime = Some(lifetime);
        self
    }

    /// From this long before a token's end, callers wait for a new one (briefly: the old one still
    /// serves). At most a tenth of the lifetime. Default: [`SAFETY_MARGIN`](Self::SAFETY_MARGIN).
    pub fn safety_margin(mut self, margin: Duration) -> Self {
        self.settings.safety_margin = margin;
        self
    }

    /// How long a token request may take, all its attempts together. Default:
    /// [`FETCH_TIMEOUT`](Self::FETCH_TIMEOUT).
    pub fn fetch_timeout(mut self, timeout: Duration) -> Self {
        self.settings.fetch_timeout = timeout;
        self
    }

    /// What events call this cache, in logs and metrics: of several, each wants a name of its own.
    /// Default: empty.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.settings.events.name = name.into();
        self
    }

    /// Called with each [`Event`], by the task or the caller that it happens to: it has to be quick.
    /// If it panics, that event is lost to it, and nothing else is. The last call counts. Default:
    /// nobody is told, but for `tracing` and `metrics` with the features of these names.
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

    /// The cache. Does no I/O.
    pub fn build(self) -> TokenCache {
        let shared = Arc::new(Shared {
            snapshot: ArcSwap::default(),
            control: Mutex::default(),
            keeper: Mutex::default(),
            source: self.source,
            settings: self.settings,
        });
        let weak = WeakTokenCache(Arc::downgrade(&shared));
        shared.source.attach(weak);
        TokenCache(shared)
    }
}
