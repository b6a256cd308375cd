use std::{cmp::Reverse, collections::VecDeque};

use super::*;

const MS: Duration = Duration::from_millis(1);
const SLOTS: usize = 8;
const PAGE: ReadClass = ReadClass(MAGNITUDES);
const BATCH: ReadClass = ReadClass(0);

/// Begins a read and ends it.
fn read(forecast: &mut ReadForecast, class: ReadClass, took: Duration, now: &mut Instant) {
    let waiting = forecast.admit(class, None, *now).unwrap();
    let running = forecast.begin(&waiting, *now);
    *now += took;
    forecast.end(&running, true, *now);
}

/// After many reads that took `took` each.
fn forecast(class: ReadClass, took: Duration) -> (ReadForecast, Instant) {
    let (mut forecast, mut now) = (ReadForecast::new(SLOTS), Instant::now());
    for _ in 0..40 {
        read(&mut forecast, class, took, &mut now);
    }
    (forecast, now)
}

/// Begins a read in every slot.
fn occupy(forecast: &mut ReadForecast, class: ReadClass, now: Instant) -> Vec<Running> {
    let begin = |_| {
        let waiting = forecast.admit(class, None, now).unwrap();
        forecast.begin(&waiting, now)
    };
    (0..SLOTS).map(begin).collect()
}

#[test]
fn a_read_waits_if_it_ends_before_its_deadline() {
    let (mut forecast, now) = forecast(PAGE, 200 * MS);
    let _running = occupy(&mut forecast, PAGE, now);
    // Half of these reads and one of its own are to come.
    let now = now + 100 * MS;
    assert_eq!(forecast.admit(PAGE, Some(290 * MS), now).unwrap_err(), Refusal::Deadline);
    assert!(forecast.admit(PAGE, Some(310 * MS), now).is_ok());
    // The one that waits is an eighth of a read more for each slot.
    assert_eq!(forecast.admit(PAGE, Some(310 * MS), now).unwrap_err(), Refusal::Deadline);
    assert!(forecast.admit(PAGE, Some(340 * MS), now).is_ok());
}

#[test]
fn a_read_that_begins_immediately_is_taken_if_it_may_be_in_time() {
    let (mut forecast, now) = forecast(BATCH, 4 * MS);
    let _first = forecast.admit(BATCH, None, now).map(|waiting| forecast.begin(&waiting, now));
    assert_eq!(forecast.admit(BATCH, Some(3 * MS), now).unwrap_err(), Refusal::Deadline);
    let second = forecast.admit(BATCH, Some(5 * MS), now).unwrap();
    assert!(forecast.ends_within(&second, Some(5 * MS)));
}

#[test]
fn a_read_does_not_wait_for_long_though_it_has_time() {
    let (mut forecast, now) = forecast(PAGE, 10 * MS);
    let _running = occupy(&mut forecast, PAGE, now);
    let mut waiting = 0;
    let refused = loop {
        match forecast.admit(PAGE, None, now) {
            Ok(_) => waiting += 1,
            Err(refused) => break refused,
        }
    };
    // Two seconds of reads for each slot.
    assert_eq!((refused, waiting), (Refusal::Wait, 200 * SLOTS + 1));
    assert_eq!(forecast.waiting_limit(), waiting);
}

#[test]
fn a_read_waits_for_half_of_its_time_at_most() {
    let (mut forecast, now) = forecast(PAGE, 10 * MS);
    let _running = occupy(&mut forecast, PAGE, now);
    // 800 ms of reads for each slot.
    for _ in 0..80 * SLOTS {
        forecast.admit(PAGE, None, now).unwrap();
    }
    assert!(forecast.admit(PAGE, Some(1_700 * MS), now).is_ok());
    assert_eq!(forecast.admit(PAGE, Some(1_500 * MS), now).err(), Some(Refusal::Wait));
}

#[test]
fn sizes_and_kinds_are_told_apart() {
    let small = ReadClass::new(ReadKind::Batch, 2);
    let large = ReadClass::new(ReadKind::Batch, 1_000);
    let page = ReadClass::new(ReadKind::Page, 1_000);
    assert_eq!(small, ReadClass::new(ReadKind::Batch, 3));
    assert_eq!(page, ReadClass::new(ReadKind::Page, MAX_PAGE_SIZE + 1));
    let (mut forecast, mut now) = forecast(large, 300 * MS);
    for _ in 0..40 {
        read(&mut forecast, small, MS, &mut now);
        read(&mut forecast, page, 50 * MS, &mut now);
    }
    let _running = [small, large, page].map(|class| forecast.admit(class, None, now).unwrap());
    let mut takes = |class, left| forecast.admit(class, Some(left * MS), now).is_ok();
    assert!(takes(small, 50) && !takes(page, 50) && !takes(large, 50));
    assert!(takes(page, 200) && !takes(large, 200));
    assert!(takes(large, 500));
}

#[test]
fn a_class_that_was_slow_once_is_measured_again_while_others_are_busy() {
    let (mut forecast, mut now) = forecast(PAGE, 8_000 * MS);
    for _ in 0..40 {
        read(&mut forecast, BATCH, MS, &mut now);
    }
    let _running = occupy(&mut forecast, BATCH, now);
    let mut tried = 0;
    loop {
        let first = forecast.admit(PAGE, Some(200 * MS), now).unwrap();
        assert!(forecast.ends_within(&first, Some(200 * MS)));
        let second = forecast.admit(PAGE, Some(200 * MS), now);
        let running = forecast.begin(&first, now);
        now += MS;
        forecast.end(&running, true, now);
        tried += 1;
        if let Ok(second) = second {
            forecast.give_up(&second);
            break;
        }
    }
    assert!(tried < 80, "{tried} reads of a millisecond each");
}

#[test]
fn a_slow_read_among_quick_ones_keeps_one_slot_and_no_other() {
    let (mut forecast, now) = forecast(BATCH, MS);
    let slow = Running { number: 0, class: PAGE, began: now, expected: 10_000 * MS };
    forecast.running.push((slow.number, slow.began, slow.expected));
    for _ in 1..SLOTS {
        let waiting = forecast.admit(BATCH, None, now).unwrap();
        let _ = forecast.begin(&waiting, now);
    }
    assert!(forecast.admit(BATCH, Some(20 * MS), now).is_ok());
    assert!(forecast.wait(now) <= 2 * MS, "{:?}", forecast.wait(now));
}

#[test]
fn reads_that_do_not_end_are_expected_to_take_longer() {
    let (mut forecast, now) = forecast(PAGE, MS);
    let _running = occupy(&mut forecast, PAGE, now);
    let now = now + 2_000 * MS;
    assert_eq!(forecast.admit(PAGE, Some(1_000 * MS), now).unwrap_err(), Refusal::Deadline);
    assert!(forecast.admit(PAGE, Some(3_000 * MS), now).is_ok());
    assert!(forecast.refuse(now) >= 200 * MS, "the one that waits is expected to take longer too");
}

#[test]
fn a_read_that_failed_quickly_is_no_quick_read() {
    let (mut forecast, mut now) = forecast(PAGE, 100 * MS);
    let mut fail = |after| {
        let waiting = forecast.admit(PAGE, None, now).unwrap();
        let running = forecast.begin(&waiting, now);
        now += after;
        forecast.end(&running, false, now);
        forecast.mean()
    };
    assert_eq!(fail(MS), 100 * MS);
    assert!(fail(900 * MS) > 150 * MS);
}

#[test]
fn each_refused_caller_is_asked_to_come_later_than_the_one_before() {
    let (mut forecast, now) = forecast(PAGE, 100 * MS);
    let running = occupy(&mut forecast, PAGE, now);
    let delays: Vec<_> = (0..2_000).map(|_| forecast.refuse(now)).collect();
    assert!(delays.is_sorted());
    assert_eq!((delays[0], delays[1_999]), (100 * MS, MAX_RETRY_DELAY));
    for running in running {
        forecast.end(&running, true, now + 100 * MS);
    }
    assert_eq!(forecast.refuse(now + 100 * MS), MIN_RETRY_DELAY, "nothing runs any more");
}

/// What became of callers, each of whom gave a read a second.
#[derive(Debug, Default)]
struct Outcome {
    offered: usize,
    in_time: usize,
    late: usize,
    /// The longest time from a call to its answer, once it is known what reads take.
    slowest: Duration,
    /// The time that slots had a read in them, and that they could have had.
    work: Duration,
    capacity: Duration,
}

/// A store of eight slots in virtual time. It is offered `times` as much as it can take, in
/// even order and of each class as much work, for 200 reads of each slot.
fn simulate(classes: &[(ReadClass, Duration)], times: f64) -> Outcome {
    const DEADLINE: Duration = Duration::from_secs(1);
    let total: Duration = classes.iter().map(|(_, takes)| *takes).sum();
    let mean = total / u32::try_from(classes.len()).unwrap();
    let interval = mean.div_f64(times) / u32::try_from(SLOTS).unwrap();
    let length = mean * 200;
    let (mut forecast, began) = (ReadForecast::new(SLOTS), Instant::now());
    let (mut outcome, mut random) = (Outcome::default(), 1_u32);
    let mut queue: VecDeque<(Waiting, Instant, Duration)> = VecDeque::new();
    let mut running: Vec<(Reverse<Instant>, Running, Instant, Duration)> = Vec::new();
    let mut arrivals = (0_u32..).map(|n| (began + interval * n, classes[n as usize % classes.len()]));
    let mut next = arrivals.next().unwrap();
    loop {
        let first = running.iter().enumerate().max_by_key(|(_, (ends, ..))| *ends);
        let ends = first.map(|(at, (Reverse(ends), ..))| (at, *ends)).filter(|(_, ends)| *ends <= next.0);
        let now = if let Some((at, now)) = ends {
            let (_, read, deadline, took) = running.swap_remove(at);
            forecast.end(&read, true, now);
            outcome.work += took;
            if now > began + length / 4 {
                outcome.slowest = outcome.slowest.max(now + DEADLINE - deadline);
            }
            if now <= deadline {
                outcome.in_time += 1;
            } else {
                outcome.late += 1;
            }
            now
        } else {
            let (now, (class, takes)) = next;
            if now > began + length {
                break;
            }
            outcome.offered += 1;
            if let Ok(waiting) = forecast.admit(class, Some(DEADLINE), now) {
                queue.push_back((waiting, now + DEADLINE, takes));
            }
            next = arrivals.next().unwrap();
            now
        };
        while running.len() < SLOTS
            && let Some((waiting, deadline, takes)) = queue.pop_front()
        {
            if !forecast.ends_within(&waiting, Some(deadline.saturating_duration_since(now))) {
                forecast.give_up(&waiting);
                continue;
            }
            // A tenth more or less.
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let took = takes.mul_f64(0.9 + 0.2 * f64::from(random) / f64::from(u32::MAX));
            running.push((Reverse(now + took), forecast.begin(&waiting, now), deadline, took));
        }
    }
    outcome.capacity = length * u32::try_from(SLOTS).unwrap();
    outcome
}

/// The arithmetic of a queue with several servers: all of them work all of the time.
#[test]
fn at_any_load_nearly_as_many_are_read_in_time_as_the_store_can() {
    let cases: [&[(ReadClass, Duration)]; 7] = [
        &[(PAGE, MS)],
        &[(PAGE, 20 * MS)],
        &[(PAGE, 100 * MS)],
        &[(PAGE, 300 * MS)],
        &[(PAGE, 600 * MS)],
        &[(PAGE, 80 * MS), (BATCH, MS)],
        &[(PAGE, 400 * MS), (BATCH, 10 * MS)],
    ];
    for classes in cases {
        for times in [1.0, 2.0, 3.0, 10.0] {
            let outcome = simulate(classes, times);
            let said = format!("{classes:?}, {times}x: {outcome:?}");
            assert!(outcome.work * 10 >= outcome.capacity * 9, "{said}");
            assert!(outcome.late * 100 <= outcome.in_time, "{said}");
            let largest = classes.iter().map(|(_, takes)| *takes).max().unwrap();
            assert!(outcome.slowest <= MAX_WAIT.max(largest) + largest * 9 / 4, "{said}");
        }
    }
}
