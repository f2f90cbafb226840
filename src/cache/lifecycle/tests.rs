use proptest::prelude::*;

use super::*;

/// When the tokens of these tests were requested.
const START: Moment = Moment {
    monotonic: 1_000_000_000_000_000,
    wall: 1_800_000_000_000_000_000,
};
const TICK: Duration = Duration::from_nanos(1);

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn at(offset: Duration) -> Moment {
    START.after(offset)
}

/// With the longest refresh window that jitter allows.
fn schedule(lifetime: Duration) -> Schedule {
    Schedule::new(START, lifetime, SAFETY_MARGIN, 1.0)
}

fn with_token(lifetime: Duration) -> Inputs {
    Inputs {
        token: TokenLifetime::Until(schedule(lifetime)),
        ..Inputs::default()
    }
}

fn verdict(state: &Inputs, offset: Duration) -> Verdict {
    classify(state, at(offset), false)
}

fn due(fallback: Duration) -> Verdict {
    Verdict::Due {
        fallback: Some(fallback),
    }
}

const DUE: Verdict = Verdict::Due { fallback: None };

/// Whether a request may be sent with the cached token, at once or after a wait.
fn usable(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Fresh | Verdict::RefreshAhead => true,
        Verdict::Due { fallback } => fallback.is_some(),
        Verdict::BackingOff { fallback, .. } => fallback,
    }
}

#[test]
fn c6_refresh_window_margin_and_expiry_are_exact_to_the_tick() {
    // In milliseconds from the anchor: expiry, start of the refresh window, start of the margin.
    let rows = [
        (1_000, 750, 900),
        (60_000, 45_000, 54_000),
        (100_000, 75_000, 90_000),
        // From here on the margin is 10 s, which is less than a tenth.
        (101_000, 75_750, 91_000),
        (3_600_000, 2_700_000, 3_590_000),
        // From here on the window is 15 min, which is less than a quarter …
        (7_200_000, 6_300_000, 7_190_000),
        (14_399_999, 13_499_999, 14_389_999),
        // … and from 4 h on 60 min.
        (14_400_000, 10_800_000, 14_390_000),
        (86_400_000, 82_800_000, 86_390_000),
    ];
    for (lifetime, refresh_window, margin) in rows {
        let [end, refresh_window, margin] = [lifetime, refresh_window, margin].map(millis);
        let state = with_token(end);
        let verdict = |offset| verdict(&state, offset);
        assert_eq!(verdict(Duration::ZERO), Verdict::Fresh, "{end:?}");
        assert_eq!(verdict(refresh_window - TICK), Verdict::Fresh, "{end:?}");
        assert_eq!(verdict(refresh_window), Verdict::RefreshAhead, "{end:?}");
        assert_eq!(verdict(margin - TICK), Verdict::RefreshAhead, "{end:?}");
        let wait = secs(1).min((end - margin) / 2);
        assert_eq!(verdict(margin), due(wait), "{end:?}");
        assert!(matches!(
            verdict(end - TICK),
            Verdict::Due { fallback: Some(_) }
        ));
        assert_eq!(verdict(end), DUE, "{end:?}");
        assert_eq!(verdict(end + secs(100_000)), DUE, "{end:?}");
    }
}

#[test]
fn jitter_shortens_the_refresh_window_to_three_quarters_at_most() {
    let starts = |jitter| {
        let schedule = Schedule::new(START, secs(3_600), SAFETY_MARGIN, jitter);
        schedule.refresh_at().since(START)
    };
    assert_eq!(starts(1.0), secs(2_700));
    assert_eq!(starts(0.5), millis(2_812_500));
    assert_eq!(starts(0.0), secs(2_925));
    assert_eq!(starts(-7.0), secs(2_925));
    assert_eq!(starts(7.0), secs(2_700));
}

#[test]
fn jitter_moves_neither_margin_nor_expiry() {
    for jitter in [0.0, 0.3, 1.0] {
        let state = Inputs {
            token: TokenLifetime::Until(Schedule::new(START, secs(60), SAFETY_MARGIN, jitter)),
            ..Inputs::default()
        };
        assert_eq!(verdict(&state, secs(54) - TICK), Verdict::RefreshAhead);
        assert_eq!(verdict(&state, secs(54)), due(secs(1)));
        assert_eq!(verdict(&state, secs(60)), DUE);
    }
}

#[test]
fn p43_configured_margin_is_capped_at_a_tenth_of_the_lifetime() {
    let starts = |margin| {
        let token = TokenLifetime::Until(Schedule::new(START, secs(100), margin, 1.0));
        let state = Inputs {
            token,
            ..Inputs::default()
        };
        let awaited = |s: &u64| usable(verdict(&state, secs(*s))) && is_due(&state, secs(*s));
        (0..100).find(awaited)
    };
    assert_eq!(starts(secs(5)), Some(95));
    assert_eq!(starts(secs(10)), Some(90));
    assert_eq!(starts(secs(3_600)), Some(90));
    assert_eq!(starts(Duration::ZERO), None);
}

fn is_due(state: &Inputs, offset: Duration) -> bool {
    matches!(verdict(state, offset), Verdict::Due { .. })
}

#[test]
fn p43_token_with_zero_lifetime_is_expired_on_arrival() {
    assert_eq!(verdict(&with_token(Duration::ZERO), Duration::ZERO), DUE);
}

#[test]
fn caller_without_a_token_waits_for_one() {
    assert_eq!(verdict(&Inputs::default(), Duration::ZERO), DUE);
}

#[test]
fn p41_token_without_expiry_is_never_refreshed() {
    let state = Inputs {
        token: TokenLifetime::Unlimited,
        ..Inputs::default()
    };
    assert_eq!(verdict(&state, secs(1_000_000_000)), Verdict::Fresh);
}

#[test]
fn suspend_expires_a_token_although_the_monotonic_clock_stopped() {
    let asleep = |duration: Duration| Moment {
        wall: at(duration).wall,
        ..START
    };
    let state = with_token(secs(3_600));
    let verdict = |duration| classify(&state, asleep(duration), false);
    assert_eq!(verdict(secs(2_700) - TICK), Verdict::Fresh);
    assert_eq!(verdict(secs(2_700)), Verdict::RefreshAhead);
    assert_eq!(verdict(secs(3_590)), due(secs(1)));
    assert_eq!(verdict(secs(3_600)), DUE);
    assert_eq!(verdict(secs(7_200)), DUE);
}

#[test]
fn wall_clock_set_back_prolongs_neither_token_nor_backoff() {
    let state = with_token(secs(3_600));
    let set_back = |duration: Duration| Moment {
        monotonic: at(duration).monotonic,
        wall: START.before(secs(86_400)).wall,
    };
    let verdict = |duration| classify(&state, set_back(duration), false);
    assert_eq!(verdict(secs(2_700) - TICK), Verdict::Fresh);
    assert_eq!(verdict(secs(2_700)), Verdict::RefreshAhead);
    assert_eq!(verdict(secs(3_590)), due(secs(1)));
    assert_eq!(verdict(secs(3_600)), DUE);
    // The same for a backoff.
    let blocked = Inputs {
        not_before: Some(at(secs(3_700))),
        failed: true,
        ..state
    };
    assert!(!usable(classify(&blocked, set_back(secs(3_699)), false)));
    assert_eq!(classify(&blocked, set_back(secs(3_700)), false), DUE);
}

#[test]
fn token_in_the_refresh_window_is_fresh_during_a_flight_or_a_backoff() {
    let cached = with_token(secs(3_600));
    let in_flight = Inputs {
        in_flight_since: Some(at(secs(2_800))),
        ..cached
    };
    assert_eq!(verdict(&in_flight, secs(2_900)), Verdict::Fresh);
    let blocked = Inputs {
        not_before: Some(at(secs(2_900))),
        ..cached
    };
    assert_eq!(verdict(&blocked, secs(2_900) - TICK), Verdict::Fresh);
    assert_eq!(verdict(&blocked, secs(2_900)), Verdict::RefreshAhead);
}

#[test]
fn p57_token_in_the_safety_margin_serves_during_a_backoff() {
    let until = at(secs(3_595));
    let blocked = Inputs {
        not_before: Some(until),
        failed: true,
        ..with_token(secs(3_600))
    };
    let serving = Verdict::BackingOff {
        fallback: true,
        until,
    };
    assert_eq!(verdict(&blocked, secs(3_590)), serving);
    assert_eq!(verdict(&blocked, secs(3_595) - TICK), serving);
    assert_eq!(verdict(&blocked, secs(3_595)), due(secs(1)));
}

#[test]
fn c14_callers_without_a_token_get_the_error_until_the_backoff_ends() {
    let until = at(secs(60));
    let failed = Inputs {
        not_before: Some(until),
        failed: true,
        ..Inputs::default()
    };
    let backing_off = Verdict::BackingOff {
        fallback: false,
        until,
    };
    assert_eq!(verdict(&failed, Duration::ZERO), backing_off);
    assert_eq!(verdict(&failed, secs(60) - TICK), backing_off);
    assert_eq!(verdict(&failed, secs(60)), DUE);
    // Callers wait for a forced flight.
    let forced = Inputs {
        in_flight_since: Some(at(secs(30))),
        ..failed
    };
    assert_eq!(verdict(&forced, secs(30)), DUE);
}

#[test]
fn p43_spacing_makes_callers_wait_without_an_error() {
    let spaced = Inputs {
        not_before: Some(at(secs(1))),
        ..with_token(Duration::ZERO)
    };
    assert_eq!(verdict(&spaced, Duration::ZERO), DUE);
    assert_eq!(verdict(&spaced, secs(1) - TICK), DUE);
}

#[test]
fn wait_with_a_valid_token_is_a_second_or_half_its_remaining_lifetime() {
    let state = with_token(secs(3_600));
    assert_eq!(verdict(&state, secs(3_590)), due(secs(1)));
    assert_eq!(verdict(&state, secs(3_598)), due(secs(1)));
    assert_eq!(verdict(&state, secs(3_599)), due(millis(500)));
    assert_eq!(verdict(&state, millis(3_599_900)), due(millis(50)));
}

#[test]
fn wait_with_a_valid_token_counts_from_the_start_of_the_flight() {
    let in_flight = |since| Inputs {
        in_flight_since: Some(at(since)),
        ..with_token(secs(3_600))
    };
    let state = in_flight(secs(3_591));
    assert_eq!(verdict(&state, secs(3_591)), due(secs(1)));
    assert_eq!(verdict(&state, millis(3_591_400)), due(millis(600)));
    assert_eq!(verdict(&state, secs(3_592) - TICK), due(TICK));
    assert_eq!(verdict(&state, secs(3_592)), Verdict::Fresh);
    assert_eq!(verdict(&state, secs(3_600) - TICK), Verdict::Fresh);
    assert_eq!(verdict(&state, secs(3_600)), DUE);
    // Half of the rest is 0.9 s, of which 0.2 s have passed.
    let late = in_flight(secs(3_598));
    assert_eq!(verdict(&late, millis(3_598_200)), due(millis(700)));
    // The wait for a flight of the refresh window has ended before the margin starts.
    assert_eq!(
        verdict(&in_flight(secs(3_500)), secs(3_590)),
        Verdict::Fresh
    );
}

#[test]
fn suspect_token_delays_only_requests_that_cannot_be_resent_for_a_second() {
    for token in [
        TokenLifetime::Until(schedule(secs(3_600))),
        TokenLifetime::Unlimited,
    ] {
        let suspect = Inputs {
            token,
            suspect: true,
            in_flight_since: Some(at(secs(10))),
            ..Inputs::default()
        };
        assert_eq!(verdict(&suspect, secs(10)), due(secs(1)));
        assert_eq!(verdict(&suspect, millis(10_999)), due(millis(1)));
        assert_eq!(verdict(&suspect, secs(11)), Verdict::Fresh);
        let can_resend = classify(&suspect, at(secs(10)), true);
        assert_eq!(can_resend, Verdict::Fresh);
    }
}

#[test]
fn suspect_token_delays_requests_by_half_its_remaining_lifetime_at_most() {
    let suspect = |since| Inputs {
        suspect: true,
        in_flight_since: Some(at(since)),
        ..with_token(secs(2))
    };
    assert_eq!(verdict(&suspect(secs(1)), secs(1)), due(millis(500)));
    assert_eq!(verdict(&suspect(secs(1)), millis(1_200)), due(millis(200)));
    assert_eq!(verdict(&suspect(secs(1)), millis(1_400)), Verdict::Fresh);
    assert_eq!(
        verdict(&suspect(Duration::ZERO), Duration::ZERO),
        due(secs(1))
    );
}

#[test]
fn suspect_token_that_has_expired_is_not_used() {
    let suspect = Inputs {
        suspect: true,
        in_flight_since: Some(at(secs(3_600))),
        ..with_token(secs(3_600))
    };
    for can_resend in [true, false] {
        assert_eq!(classify(&suspect, at(secs(3_600)), can_resend), DUE);
    }
}

#[test]
fn same_token_again_keeps_the_margins_of_its_first_lifetime() {
    // Refresh window 25 s, margin 10 s; the second response extends the expiry by 5 s.
    let state = Inputs {
        token: TokenLifetime::Until(schedule(secs(100)).renewed(at(secs(105)))),
        ..Inputs::default()
    };
    assert_eq!(verdict(&state, secs(80) - TICK), Verdict::Fresh);
    assert_eq!(verdict(&state, secs(80)), Verdict::RefreshAhead);
    assert_eq!(verdict(&state, secs(95) - TICK), Verdict::RefreshAhead);
    assert_eq!(verdict(&state, secs(95)), due(secs(1)));
    assert_eq!(verdict(&state, secs(105)), DUE);
}

/// From milliseconds to a year, densest where the rules change.
fn lifetimes() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (0..2_000u64).prop_map(millis),
        (0..300_000u64).prop_map(millis),
        (0..40_000u64).prop_map(secs),
        (0..31_536_000u64).prop_map(secs),
    ]
}

/// All inputs except the token. Times are offsets from the anchor.
fn other_inputs() -> impl Strategy<Value = Inputs> {
    let moment = || proptest::option::of((0..50_000_000u64).prop_map(|ms| at(millis(ms))));
    (any::<bool>(), any::<bool>(), moment(), moment()).prop_map(
        |(suspect, failed, in_flight_since, not_before)| Inputs {
            token: TokenLifetime::NoToken,
            suspect,
            in_flight_since,
            not_before,
            failed,
        },
    )
}

#[derive(Clone, Debug)]
enum Step {
    Advance(u64),
    Suspend(u64),
    SetBack(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ms = || prop_oneof![0..1_000u64, 0..100_000u64, 0..50_000_000u64];
    proptest::collection::vec(
        prop_oneof![
            ms().prop_map(Step::Advance),
            ms().prop_map(Step::Suspend),
            ms().prop_map(Step::SetBack),
        ],
        1..8,
    )
}

/// Orders verdicts from `Fresh` to `Due`, without flights.
fn rank(verdict: Verdict) -> (u8, bool) {
    match verdict {
        Verdict::Fresh => (0, false),
        Verdict::RefreshAhead => (1, false),
        Verdict::BackingOff { fallback: true, .. } => (2, false),
        Verdict::Due { fallback: Some(_) } => (2, true),
        Verdict::BackingOff {
            fallback: false, ..
        } => (3, false),
        Verdict::Due { fallback: None } => (3, true),
    }
}

/// Any token, or none.
fn tokens() -> impl Strategy<Value = TokenLifetime> {
    let until = (lifetimes(), lifetimes(), 0.0..=1.0f64).prop_map(|(life, margin, jitter)| {
        TokenLifetime::Until(Schedule::new(START, life, margin, jitter))
    });
    prop_oneof![1 => Just(TokenLifetime::NoToken), 1 => Just(TokenLifetime::Unlimited), 8 => until]
}

/// Steps of both clocks, as shares of the token's lifetime. The clocks may advance apart, as with a
/// suspend or a wall clock that is set forward.
fn shares() -> impl Strategy<Value = Vec<(f64, f64, bool)>> {
    let share = || prop_oneof![Just(0.0), 0.0..0.01f64, 0.0..0.3f64, 0.0..1.1f64];
    proptest::collection::vec((share(), share(), any::<bool>()), 2..12)
}

fn moments(token: &TokenLifetime, shares: Vec<(f64, f64, bool)>) -> Vec<Moment> {
    let life = match token {
        TokenLifetime::Until(schedule) => schedule.expires_at().since(START),
        TokenLifetime::NoToken | TokenLifetime::Unlimited => secs(3_600),
    };
    let mut now = START;
    let mut later = |(monotonic, wall, together): (f64, f64, bool)| {
        let wall = if together { monotonic } else { wall };
        now.monotonic = now.after(life.mul_f64(monotonic)).monotonic;
        now.wall = now.after(life.mul_f64(wall)).wall;
        now
    };
    shares.into_iter().map(&mut later).collect()
}

proptest! {
    #[test]
    fn token_expired_on_either_clock_is_never_used(
        lifetime in lifetimes(),
        jitter in 0.0..=1.0f64,
        margin in lifetimes(),
        other_inputs in other_inputs(),
        steps in steps(),
        can_resend: bool,
    ) {
        let token = TokenLifetime::Until(Schedule::new(START, lifetime, margin, jitter));
        let state = Inputs { token, ..other_inputs };
        // Independent of `Moment`'s arithmetic: nanoseconds from the anchor.
        let (mut monotonic, mut wall) = (0i128, 0i128);
        for step in steps {
            let ns = |ms: u64| i128::from(ms) * 1_000_000;
            match step {
                Step::Advance(ms) => { monotonic += ns(ms); wall += ns(ms); }
                Step::Suspend(ms) => wall += ns(ms),
                Step::SetBack(ms) => wall -= ns(ms),
            }
            let now = Moment {
                monotonic: u64::try_from(i128::from(START.monotonic) + monotonic).unwrap(),
                wall: u64::try_from(i128::from(START.wall) + wall).unwrap(),
            };
            let expired = monotonic.max(wall) >= i128::try_from(lifetime.as_nanos()).unwrap();
            prop_assert_eq!(usable(classify(&state, now, can_resend)), !expired);
        }
    }

    /// For any state, any steps of the clocks, and any pause.
    #[test]
    fn verdict_moves_only_towards_expired_as_time_passes(
        token in tokens(),
        other_inputs in other_inputs(),
        can_resend: bool,
        shares in shares(),
    ) {
        let times = moments(&token, shares);
        let state = Inputs { token, in_flight_since: None, ..other_inputs };
        let ranks: Vec<_> = times
            .iter()
            .map(|now| rank(classify(&state, *now, can_resend)))
            .collect();
        prop_assert!(ranks.is_sorted(), "{:?}", ranks);
        // At any one time, the end of a pause never moves the verdict back.
        let free = Inputs { not_before: None, ..state };
        for now in times {
            let blocked = rank(classify(&state, now, can_resend));
            prop_assert!(blocked <= rank(classify(&free, now, can_resend)));
        }
    }

    /// During a flight, the wait of callers with a valid token only shrinks. It ends a second after the
    /// flight's start, and is at most half the token's remaining lifetime. Then the token serves until
    /// it expires.
    #[test]
    fn wait_during_a_flight_only_shrinks(
        token in tokens(),
        other_inputs in other_inputs(),
        can_resend: bool,
        shares in shares(),
    ) {
        let times = moments(&token, shares);
        let began = times[0];
        let state = Inputs { token, in_flight_since: Some(began), ..other_inputs };
        let (mut expired, mut shortest) = (false, secs(1));
        for now in times {
            let wait = match classify(&state, now, can_resend) {
                Verdict::Fresh => None,
                Verdict::Due { fallback: Some(wait) } => Some(wait),
                Verdict::Due { fallback: None } => {
                    expired = true;
                    continue;
                }
                // No second flight starts.
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            };
            prop_assert!(!expired, "an expired token was used again");
            let Some(wait) = wait else { continue };
            let monotonic = now.monotonic - began.monotonic;
            let elapsed = Duration::from_nanos(monotonic.max(now.wall - began.wall));
            prop_assert!(elapsed + wait <= secs(1));
            if let TokenLifetime::Until(schedule) = &token {
                prop_assert!(wait <= now.until(schedule.expires_at()) / 2);
            }
            prop_assert!(wait <= shortest, "{wait:?} after {shortest:?}");
            shortest = wait;
        }
    }

    #[test]
    fn wait_with_a_valid_token_never_exceeds_a_second_or_half_its_remaining_lifetime(
        lifetime in lifetimes(),
        other_inputs in other_inputs(),
        share in 0.0..1.0f64,
    ) {
        let token = TokenLifetime::Until(schedule(lifetime));
        let state = Inputs { token, suspect: false, ..other_inputs };
        let offset = lifetime.mul_f64(share);
        if let Verdict::Due { fallback: Some(wait) } = verdict(&state, offset) {
            prop_assert!(!wait.is_zero() || lifetime - offset < 2 * TICK);
            prop_assert!(wait <= secs(1));
            prop_assert!(wait <= (lifetime - offset) / 2);
        }
    }

    #[test]
    fn refresh_window_stays_within_its_caps_and_covers_the_margin(
        lifetime in lifetimes(),
        jitter in 0.0..=1.0f64,
    ) {
        let schedule = Schedule::new(START, lifetime, SAFETY_MARGIN, jitter);
        let window = schedule.expires_at().since(schedule.refresh_at());
        let longest = if lifetime >= secs(4 * 3_600) { secs(3_600) } else { secs(900) };
        let full = (lifetime / 4).min(longest);
        prop_assert!(window <= full);
        prop_assert!(window + TICK >= full.mul_f64(0.75));
        prop_assert!(window >= secs(10).min(lifetime / 10));
    }

    #[test]
    fn verdict_is_fresh_for_every_request_before_fresh_until(
        lifetime in lifetimes(),
        jitter in 0.0..=1.0f64,
        unlimited: bool,
        other_inputs in other_inputs(),
        share in 0.0..1.3f64,
        can_resend: bool,
    ) {
        let schedule = Schedule::new(START, lifetime, SAFETY_MARGIN, jitter);
        let token = if unlimited { TokenLifetime::Unlimited } else { TokenLifetime::Until(schedule) };
        for token in [token, TokenLifetime::NoToken] {
            let state = Inputs { token, ..other_inputs };
            let now = at(lifetime.mul_f64(share));
            if !now.reached(state.fresh_until()) {
                prop_assert_eq!(classify(&state, now, can_resend), Verdict::Fresh);
            } else if let TokenLifetime::Until(schedule) = token {
                // `fresh_until` is not earlier than necessary.
                prop_assert!(state.suspect || now.reached(schedule.refresh_at()));
            }
        }
    }
}
