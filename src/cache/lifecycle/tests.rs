use proptest::prelude::*;

use super::*;

/// When the tokens of these tests were asked for.
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

/// Without jitter: the refresh window is as long as it gets.
fn schedule(lifetime: Duration) -> Schedule {
    Schedule::new(START, lifetime, SAFETY_MARGIN, 1.0)
}

fn holding(lifetime: Duration) -> Inputs {
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

/// Whether a request goes out with the token in hand, at once or after a wait.
fn usable(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Fresh | Verdict::RefreshAhead => true,
        Verdict::Due { fallback } => fallback.is_some(),
        Verdict::BackingOff { fallback, .. } => fallback,
    }
}

#[test]
fn c6_ageing_margin_and_expiry_are_exact_to_the_tick() {
    // Lifetime, refresh_window, margin, in milliseconds from the anchor.
    let rows = [
        (1_000, 750, 900),
        (60_000, 45_000, 54_000),
        (100_000, 75_000, 90_000),
        // A tenth of it would be more than 10 s from here on.
        (101_000, 75_750, 91_000),
        (3_600_000, 2_700_000, 3_590_000),
        // A quarter of it would be more than 15 min from here on …
        (7_200_000, 6_300_000, 7_190_000),
        (14_399_999, 13_499_999, 14_389_999),
        // … and from 4 h on than 60 min.
        (14_400_000, 10_800_000, 14_390_000),
        (86_400_000, 82_800_000, 86_390_000),
    ];
    for (lifetime, refresh_window, margin) in rows {
        let [end, refresh_window, margin] = [lifetime, refresh_window, margin].map(millis);
        let state = holding(end);
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
fn jitter_shortens_the_ageing_window_to_three_quarters_at_most() {
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
fn p43_a_margin_of_one_s_own_is_a_tenth_of_the_lifetime_at_most() {
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
fn p43_a_token_without_a_lifetime_is_over_on_arrival() {
    assert_eq!(verdict(&holding(Duration::ZERO), Duration::ZERO), DUE);
}

#[test]
fn without_a_token_callers_wait_for_one() {
    assert_eq!(verdict(&Inputs::default(), Duration::ZERO), DUE);
}

#[test]
fn p41_a_lasting_token_never_ages() {
    let state = Inputs {
        token: TokenLifetime::Unlimited,
        ..Inputs::default()
    };
    assert_eq!(verdict(&state, secs(1_000_000_000)), Verdict::Fresh);
}

#[test]
fn a_suspend_ages_and_ends_a_token_although_the_monotonic_clock_stood_still() {
    let asleep = |duration: Duration| Moment {
        wall: at(duration).wall,
        ..START
    };
    let state = holding(secs(3_600));
    let verdict = |duration| classify(&state, asleep(duration), false);
    assert_eq!(verdict(secs(2_700) - TICK), Verdict::Fresh);
    assert_eq!(verdict(secs(2_700)), Verdict::RefreshAhead);
    assert_eq!(verdict(secs(3_590)), due(secs(1)));
    assert_eq!(verdict(secs(3_600)), DUE);
    assert_eq!(verdict(secs(7_200)), DUE);
}

#[test]
fn a_clock_that_was_set_back_prolongs_nothing() {
    let state = holding(secs(3_600));
    let set_back = |duration: Duration| Moment {
        monotonic: at(duration).monotonic,
        wall: START.before(secs(86_400)).wall,
    };
    let verdict = |duration| classify(&state, set_back(duration), false);
    assert_eq!(verdict(secs(2_700) - TICK), Verdict::Fresh);
    assert_eq!(verdict(secs(2_700)), Verdict::RefreshAhead);
    assert_eq!(verdict(secs(3_590)), due(secs(1)));
    assert_eq!(verdict(secs(3_600)), DUE);
    // Nor does it a pause.
    let paused = Inputs {
        not_before: Some(at(secs(3_700))),
        failed: true,
        ..state
    };
    assert!(!usable(classify(&paused, set_back(secs(3_699)), false)));
    assert_eq!(classify(&paused, set_back(secs(3_700)), false), DUE);
}

#[test]
fn ageing_reads_as_fresh_while_a_flight_is_under_way_or_may_not_start() {
    let refresh_window = holding(secs(3_600));
    let flying = Inputs {
        in_flight_since: Some(at(secs(2_800))),
        ..refresh_window
    };
    assert_eq!(verdict(&flying, secs(2_900)), Verdict::Fresh);
    let paused = Inputs {
        not_before: Some(at(secs(2_900))),
        ..refresh_window
    };
    assert_eq!(verdict(&paused, secs(2_900) - TICK), Verdict::Fresh);
    assert_eq!(verdict(&paused, secs(2_900)), Verdict::RefreshAhead);
}

#[test]
fn p57_inside_the_margin_the_token_serves_while_no_flight_may_start() {
    let until = at(secs(3_595));
    let paused = Inputs {
        not_before: Some(until),
        failed: true,
        ..holding(secs(3_600))
    };
    let serving = Verdict::BackingOff {
        fallback: true,
        until,
    };
    assert_eq!(verdict(&paused, secs(3_590)), serving);
    assert_eq!(verdict(&paused, secs(3_595) - TICK), serving);
    assert_eq!(verdict(&paused, secs(3_595)), due(secs(1)));
}

#[test]
fn c14_without_a_token_callers_are_told_until_the_backoff_is_over() {
    let until = at(secs(60));
    let failed = Inputs {
        not_before: Some(until),
        failed: true,
        ..Inputs::default()
    };
    let told = Verdict::BackingOff {
        fallback: false,
        until,
    };
    assert_eq!(verdict(&failed, Duration::ZERO), told);
    assert_eq!(verdict(&failed, secs(60) - TICK), told);
    assert_eq!(verdict(&failed, secs(60)), DUE);
    // A flight that somebody forced is worth waiting for.
    let forced = Inputs {
        in_flight_since: Some(at(secs(30))),
        ..failed
    };
    assert_eq!(verdict(&forced, secs(30)), DUE);
}

#[test]
fn p43_spacing_alone_makes_callers_gather_and_is_no_error() {
    let spaced = Inputs {
        not_before: Some(at(secs(1))),
        ..holding(Duration::ZERO)
    };
    assert_eq!(verdict(&spaced, Duration::ZERO), DUE);
    assert_eq!(verdict(&spaced, secs(1) - TICK), DUE);
}

#[test]
fn the_wait_with_a_token_in_hand_is_a_second_or_half_of_what_is_left() {
    let state = holding(secs(3_600));
    assert_eq!(verdict(&state, secs(3_590)), due(secs(1)));
    assert_eq!(verdict(&state, secs(3_598)), due(secs(1)));
    assert_eq!(verdict(&state, secs(3_599)), due(millis(500)));
    assert_eq!(verdict(&state, millis(3_599_900)), due(millis(50)));
}

#[test]
fn the_wait_with_a_token_in_hand_counts_from_the_start_of_the_flight() {
    let flying = |since| Inputs {
        in_flight_since: Some(at(since)),
        ..holding(secs(3_600))
    };
    let state = flying(secs(3_591));
    assert_eq!(verdict(&state, secs(3_591)), due(secs(1)));
    assert_eq!(verdict(&state, millis(3_591_400)), due(millis(600)));
    assert_eq!(verdict(&state, secs(3_592) - TICK), due(TICK));
    assert_eq!(verdict(&state, secs(3_592)), Verdict::Fresh);
    assert_eq!(verdict(&state, secs(3_600) - TICK), Verdict::Fresh);
    assert_eq!(verdict(&state, secs(3_600)), DUE);
    // Half of what is left: 0.9 s, of which 0.2 s have gone.
    let late = flying(secs(3_598));
    assert_eq!(verdict(&late, millis(3_598_200)), due(millis(700)));
    // A flight that started while the token was in its refresh window has had its time.
    assert_eq!(verdict(&flying(secs(3_500)), secs(3_590)), Verdict::Fresh);
}

#[test]
fn a_resting_token_is_waited_for_by_those_who_cannot_resend_and_for_a_second() {
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
fn a_resting_token_is_not_waited_for_past_half_of_what_is_left_of_it() {
    let suspect = |since| Inputs {
        suspect: true,
        in_flight_since: Some(at(since)),
        ..holding(secs(2))
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
fn resting_gives_an_expired_token_no_more_life() {
    let suspect = Inputs {
        suspect: true,
        in_flight_since: Some(at(secs(3_600))),
        ..holding(secs(3_600))
    };
    for can_resend in [true, false] {
        assert_eq!(classify(&suspect, at(secs(3_600)), can_resend), DUE);
    }
}

#[test]
fn the_same_token_again_keeps_the_margins_of_its_first_lifetime() {
    // Ageing 25 s and margin 10 s before the end; the server says that it ends 5 s later.
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

/// Somewhere from milliseconds to a year, densest where the rules change.
fn lifetimes() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (0..2_000u64).prop_map(millis),
        (0..300_000u64).prop_map(millis),
        (0..40_000u64).prop_map(secs),
        (0..31_536_000u64).prop_map(secs),
    ]
}

/// Everything but the token: pauses and flights, as offsets from the anchor.
fn circumstances() -> impl Strategy<Value = Inputs> {
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

/// The further right, the more has to be done. Without flights.
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

/// Any token that there may be.
fn tokens() -> impl Strategy<Value = TokenLifetime> {
    let until = (lifetimes(), lifetimes(), 0.0..=1.0f64).prop_map(|(life, margin, jitter)| {
        TokenLifetime::Until(Schedule::new(START, life, margin, jitter))
    });
    prop_oneof![1 => Just(TokenLifetime::NoToken), 1 => Just(TokenLifetime::Unlimited), 8 => until]
}

/// In order: each clock goes on by itself, as with a suspend or one that is set forward. In shares
/// of the token's life.
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
    fn a_token_past_its_end_on_either_clock_is_never_used(
        lifetime in lifetimes(),
        jitter in 0.0..=1.0f64,
        margin in lifetimes(),
        circumstances in circumstances(),
        steps in steps(),
        can_resend: bool,
    ) {
        let token = TokenLifetime::Until(Schedule::new(START, lifetime, margin, jitter));
        let state = Inputs { token, ..circumstances };
        // Kept apart from `Moment`'s arithmetic: nanoseconds from the anchor.
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
            let over = monotonic.max(wall) >= i128::try_from(lifetime.as_nanos()).unwrap();
            prop_assert_eq!(usable(classify(&state, now, can_resend)), !over);
        }
    }

    /// Whatever the state, however each clock goes on, and whether pauses end meanwhile or not.
    #[test]
    fn only_a_later_time_moves_a_state_to_the_right_and_none_to_the_left(
        token in tokens(),
        circumstances in circumstances(),
        can_resend: bool,
        shares in shares(),
    ) {
        let times = moments(&token, shares);
        let state = Inputs { token, in_flight_since: None, ..circumstances };
        let ranks: Vec<_> = times
            .iter()
            .map(|now| rank(classify(&state, *now, can_resend)))
            .collect();
        prop_assert!(ranks.is_sorted(), "{:?}", ranks);
        // And a pause that ends never makes less of it, at any one time.
        let free = Inputs { not_before: None, ..state };
        for now in times {
            let paused = rank(classify(&state, now, can_resend));
            prop_assert!(paused <= rank(classify(&free, now, can_resend)));
        }
    }

    /// With a flight under way: a token in hand is waited with for less and less, a second after
    /// its start at most, and half of what is left; otherwise it serves, until it ends.
    #[test]
    fn while_a_flight_is_under_way_nobody_waits_anew(
        token in tokens(),
        circumstances in circumstances(),
        can_resend: bool,
        shares in shares(),
    ) {
        let times = moments(&token, shares);
        let began = times[0];
        let state = Inputs { token, in_flight_since: Some(began), ..circumstances };
        let (mut over, mut least) = (false, secs(1));
        for now in times {
            let wait = match classify(&state, now, can_resend) {
                Verdict::Fresh => None,
                Verdict::Due { fallback: Some(wait) } => Some(wait),
                Verdict::Due { fallback: None } => {
                    over = true;
                    continue;
                }
                // Nobody starts another.
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            };
            prop_assert!(!over, "an ended token came back");
            let Some(wait) = wait else { continue };
            let monotonic = now.monotonic - began.monotonic;
            let gone = Duration::from_nanos(monotonic.max(now.wall - began.wall));
            prop_assert!(gone + wait <= secs(1));
            if let TokenLifetime::Until(schedule) = &token {
                prop_assert!(wait <= now.until(schedule.expires_at()) / 2);
            }
            prop_assert!(wait <= least, "{wait:?} after {least:?}");
            least = wait;
        }
    }

    #[test]
    fn nobody_waits_longer_with_a_token_in_hand_than_a_second_or_what_is_left(
        lifetime in lifetimes(),
        circumstances in circumstances(),
        share in 0.0..1.0f64,
    ) {
        let token = TokenLifetime::Until(schedule(lifetime));
        let state = Inputs { token, suspect: false, ..circumstances };
        let offset = lifetime.mul_f64(share);
        if let Verdict::Due { fallback: Some(wait) } = verdict(&state, offset) {
            prop_assert!(!wait.is_zero() || lifetime - offset < 2 * TICK);
            prop_assert!(wait <= secs(1));
            prop_assert!(wait <= (lifetime - offset) / 2);
        }
    }

    #[test]
    fn ageing_starts_within_its_caps_and_before_the_margin(
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
    fn until_it_need_not_be_asked_the_verdict_is_fresh_for_everybody(
        lifetime in lifetimes(),
        jitter in 0.0..=1.0f64,
        lasting: bool,
        circumstances in circumstances(),
        share in 0.0..1.3f64,
        can_resend: bool,
    ) {
        let schedule = Schedule::new(START, lifetime, SAFETY_MARGIN, jitter);
        let token = if lasting { TokenLifetime::Unlimited } else { TokenLifetime::Until(schedule) };
        for token in [token, TokenLifetime::NoToken] {
            let state = Inputs { token, ..circumstances };
            let now = at(lifetime.mul_f64(share));
            if !now.reached(state.fresh_until()) {
                prop_assert_eq!(classify(&state, now, can_resend), Verdict::Fresh);
            } else if let TokenLifetime::Until(schedule) = token {
                // And it is no shorter than it has to be.
                prop_assert!(state.suspect || now.reached(schedule.refresh_at()));
            }
        }
    }
}
