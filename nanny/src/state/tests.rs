use super::*;

const KILLED: Exit = Exit::Signal(9);

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn config() -> Config {
    Config {
        address: "tcp://127.0.0.1:1000".into(),
        scheduler: "tcp://127.0.0.1:8786".into(),
        death_timeout: None,
        memory_limit: Some(1000),
        terminate_fraction: Some(0.95),
    }
}

struct Nanny {
    state: State,
    now: Duration,
}

impl Nanny {
    fn new(config: Config) -> Nanny {
        Nanny { state: State::new(config), now: Duration::ZERO }
    }

    fn running() -> Nanny {
        let mut nanny = Nanny::new(config());
        assert_eq!(nanny.on(Event::Start), [Action::Spawn]);
        assert_eq!(nanny.on(started(1)), [Action::AnnounceStarted { ok: true }]);
        nanny
    }

    fn on(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.state.handle(self.now, event, &mut actions);
        actions
    }

    fn after(&mut self, pause: Duration, event: Event) -> Vec<Action> {
        self.now += pause;
        self.on(event)
    }
}

fn address(n: u16) -> Address {
    Address::from_parts("tcp", "127.0.0.1", n)
}

fn started(n: u16) -> Event {
    Event::WorkerStarted { address: address(n), local_directory: format!("/tmp/worker-{n}").into() }
}

fn exited(exit: Exit) -> Event {
    Event::WorkerExited { pid: 77, exit }
}

fn remove(n: u16) -> Action {
    Action::RemoveDirectory { path: format!("/tmp/worker-{n}").into() }
}

fn report(n: u16, exit: Exit) -> Action {
    Action::ReportDeath { address: address(n), pid: 77, exit }
}

fn unregister(n: u16) -> Action {
    Action::Unregister { address: Some(address(n)) }
}

fn finish(failure: Option<&str>) -> Action {
    Action::Finish { failure: failure.map(str::to_owned) }
}

fn close(timeout: f64) -> Event {
    Event::Close { timeout, reason: "signal-15".to_owned() }
}

fn ask(timeout: f64, reason: &str) -> Action {
    Action::AskToStop { timeout, reason: reason.to_owned() }
}

#[test]
fn dead_worker_is_unregistered_before_the_next_one_starts() {
    let mut nanny = Nanny::running();
    let exit = Exit::Signal(15);
    assert_eq!(nanny.after(seconds(60), exited(exit)), [report(1, exit), remove(1), unregister(1)]);
    assert_eq!(nanny.state.worker_address(), None);
    assert_eq!(nanny.on(Event::Unregistered), [Action::Spawn]);
    assert_eq!(nanny.on(started(2)), []);
    assert_eq!(nanny.state.worker_address(), Some(&address(2)));
    assert_eq!(nanny.state.status(), Status::Running);
}

#[test]
fn worker_that_exits_normally_without_notice_is_replaced_too() {
    let mut nanny = Nanny::running();
    assert_eq!(nanny.on(exited(Exit::Code(0))), [remove(1), unregister(1)]);
    assert_eq!(nanny.on(Event::Unregistered), [Action::Spawn]);
}

#[test]
fn quick_deaths_are_answered_at_once_a_few_times_and_then_ever_later() {
    let mut nanny = Nanny::running();
    for n in 1..=3 {
        assert_eq!(nanny.after(seconds(1), exited(KILLED)), [report(n, KILLED), remove(n), unregister(n)]);
        assert_eq!(nanny.on(Event::Unregistered), [Action::Spawn]);
        assert_eq!(nanny.on(started(n + 1)), []);
    }
    for pause in [1, 2, 4, 8, 16, 30, 30] {
        nanny.after(seconds(1), exited(KILLED));
        assert_eq!(nanny.on(Event::Unregistered), []);
        assert_eq!(nanny.state.next_timeout(), Some(nanny.now + seconds(pause)));
        assert_eq!(nanny.on(Event::Timeout), [], "too early");
        assert_eq!(nanny.after(seconds(pause), Event::Timeout), [Action::Spawn]);
        assert_eq!(nanny.on(started(9)), []);
    }
    nanny.after(QUICK_DEATH, exited(KILLED));
    assert_eq!(nanny.on(Event::Unregistered), [Action::Spawn], "a long life ends the series");
}

#[test]
fn worker_that_says_farewell_takes_the_nanny_along() {
    let mut nanny = Nanny::running();
    assert_eq!(nanny.on(Event::WorkerClosing { reason: "scheduler-close".to_owned() }), []);
    assert_eq!(nanny.state.status(), Status::ClosingGracefully);
    assert_eq!(nanny.on(exited(Exit::Code(0))), [remove(1), finish(None)]);
    assert_eq!(nanny.state.status(), Status::Closed);
}

#[test]
fn close_asks_waits_kills_and_finishes() {
    let mut nanny = Nanny::running();
    assert_eq!(nanny.on(close(10.0)), [ask(8.0, "signal-15")]);
    assert_eq!(nanny.on(close(10.0)), [], "a second close changes nothing");
    assert_eq!(nanny.after(seconds(8), Event::Timeout), [Action::Signal(Signal::Kill)]);
    assert_eq!(nanny.after(seconds(1), exited(KILLED)), [remove(1), finish(None)]);
    assert_eq!(nanny.state.status(), Status::Closed);
}

#[test]
fn close_leaves_a_process_that_even_sigkill_does_not_end() {
    let mut nanny = Nanny::running();
    nanny.on(close(10.0));
    nanny.after(seconds(8), Event::Timeout);
    assert_eq!(nanny.state.next_timeout(), Some(nanny.now + KILLED_WAIT));
    assert_eq!(nanny.after(KILLED_WAIT, Event::Timeout), [finish(None)]);
    assert_eq!(nanny.on(exited(KILLED)), [], "nothing more to do for it");
}

#[test]
fn nonsense_timeouts_of_callers_are_bounded() {
    for timeout in [f64::NAN, f64::INFINITY, f64::MAX, -1.0, f64::NEG_INFINITY] {
        let mut nanny = Nanny::running();
        nanny.on(close(timeout));
        assert!(nanny.state.next_timeout() <= Some(Duration::from_secs_f64(STOP_SECONDS_MAX)));
    }
}

#[test]
fn kill_is_answered_when_the_process_is_gone_and_a_new_one_follows() {
    let mut nanny = Nanny::running();
    let waiter = Waiter(5);
    let kill = Event::Kill { timeout: 5.0, reason: "scheduler-restart".to_owned(), waiter };
    assert_eq!(nanny.on(kill), [ask(4.0, "scheduler-restart")]);
    let answer = Action::Answer { waiter, outcome: Outcome::Ok };
    assert_eq!(nanny.on(exited(Exit::Code(0))), [remove(1), answer, unregister(1)]);
    assert_eq!(nanny.on(Event::Unregistered), [Action::Spawn]);
}

#[test]
fn deaths_by_order_do_not_count_as_quick() {
    let mut nanny = Nanny::running();
    for n in 1..=8 {
        nanny.on(Event::Kill { timeout: 5.0, reason: "restart".to_owned(), waiter: Waiter(n) });
        nanny.on(exited(Exit::Code(0)));
        assert_eq!(nanny.on(Event::Unregistered), [Action::Spawn]);
        nanny.on(started(3));
    }
}

#[test]
fn restart_is_answered_when_the_new_worker_runs() {
    let mut nanny = Nanny::running();
    let waiter = Waiter(1);
    let restart = Event::Restart { timeout: 5.0, reason: "nanny-restart".to_owned(), waiter };
    assert_eq!(nanny.on(restart), [ask(4.0, "nanny-restart")]);
    assert_eq!(nanny.on(exited(Exit::Code(0))), [remove(1), unregister(1)]);
    assert_eq!(nanny.on(Event::Unregistered), [Action::Spawn]);
    assert_eq!(nanny.on(started(2)), [Action::Answer { waiter, outcome: Outcome::Ok }]);
}

#[test]
fn restart_during_back_off_starts_at_once() {
    let mut nanny = Nanny::running();
    for _ in 0..4 {
        nanny.on(exited(KILLED));
        nanny.on(Event::Unregistered);
        nanny.on(started(2));
    }
    assert!(nanny.state.next_timeout().is_some());
    let restart = Event::Restart { timeout: 5.0, reason: "nanny-restart".to_owned(), waiter: Waiter(1) };
    assert_eq!(nanny.on(restart), [Action::Spawn]);
}

#[test]
fn restart_of_a_leaving_nanny_is_refused() {
    let mut nanny = Nanny::running();
    nanny.on(Event::CloseGracefully { reason: "test".to_owned() });
    let waiter = Waiter(3);
    let actions = nanny.on(Event::Restart { timeout: 5.0, reason: "test".to_owned(), waiter });
    assert!(
        matches!(&actions[..], [Action::Answer { waiter: Waiter(3), outcome: Outcome::Refused(_) }]),
        "{actions:?}"
    );
}

#[test]
fn instantiate_answers_once_a_worker_runs() {
    let mut nanny = Nanny::new(config());
    nanny.on(Event::Start);
    let (early, late) = (Waiter(1), Waiter(2));
    assert_eq!(nanny.on(Event::Instantiate { waiter: early }), []);
    let answer = |waiter| Action::Answer { waiter, outcome: Outcome::Ok };
    assert_eq!(nanny.on(started(1)), [Action::AnnounceStarted { ok: true }, answer(early)]);
    assert_eq!(nanny.on(Event::Instantiate { waiter: late }), [answer(late)]);
}

#[test]
fn first_worker_that_cannot_start_fails_the_nanny() {
    let mut nanny = Nanny::new(config());
    nanny.on(Event::Start);
    nanny.on(Event::WorkerFailed { text: "name taken".to_owned() });
    assert_eq!(nanny.on(exited(Exit::Code(1))), [Action::AnnounceStarted { ok: false }, finish(Some("name taken"))]);
    assert_eq!(nanny.state.status(), Status::Failed);
}

#[test]
fn later_worker_that_cannot_start_is_tried_again() {
    let mut nanny = Nanny::running();
    nanny.after(seconds(60), exited(KILLED));
    nanny.on(Event::Unregistered);
    nanny.on(Event::WorkerFailed { text: "no port".to_owned() });
    assert_eq!(nanny.on(exited(Exit::Code(1))), [Action::Unregister { address: None }]);
    assert_eq!(nanny.on(Event::Unregistered), [Action::Spawn]);
}

#[test]
fn worker_that_does_not_register_in_time_fails_the_nanny() {
    let mut nanny = Nanny::new(Config { death_timeout: Some(seconds(3)), ..config() });
    nanny.on(Event::Start);
    assert_eq!(nanny.state.next_timeout(), Some(seconds(3)));
    let actions = nanny.after(seconds(3), Event::Timeout);
    assert_eq!(actions, [Action::AnnounceStarted { ok: false }, ask(4.0, "nanny-instantiate-timeout")]);
    let actions = nanny.on(exited(Exit::Code(0)));
    assert_eq!(actions, [finish(Some("the worker did not register in time"))]);
}

#[test]
fn worker_over_its_memory_gets_sigterm_then_sigkill() {
    let mut nanny = Nanny::running();
    let memory = |rss| Event::Memory { pid: 77, rss };
    assert_eq!(nanny.on(memory(950)), []);
    assert_eq!(nanny.on(memory(951)), [], "it may be a moment's");
    let log = Action::LogMemoryRestart { worker: address(1), pid: 77, rss: 951 };
    assert_eq!(nanny.on(memory(951)), [log, Action::Signal(Signal::Terminate)]);
    assert_eq!(nanny.on(memory(951)), [Action::Signal(Signal::Kill)]);
    assert_eq!(nanny.after(seconds(1), memory(951)), [], "once is enough");
    nanny.on(exited(Exit::Signal(15)));
    nanny.on(Event::Unregistered);
    assert_eq!(nanny.on(memory(2000)), [], "the next worker is not registered yet");
}

#[test]
fn a_moment_over_the_fraction_ends_no_worker_and_one_over_the_limit_does() {
    let mut nanny = Nanny::running();
    let memory = |rss| Event::Memory { pid: 77, rss };
    for _ in 0..3 {
        assert_eq!(nanny.on(memory(1000)), []);
        assert_eq!(nanny.on(memory(950)), []);
    }
    let log = Action::LogMemoryRestart { worker: address(1), pid: 77, rss: 1001 };
    assert_eq!(nanny.on(memory(1001)), [log, Action::Signal(Signal::Terminate)]);
}

#[test]
fn a_worker_that_hangs_in_the_kernel_is_not_counted_on() {
    let mut nanny = Nanny::running();
    let memory = |rss| Event::Memory { pid: 77, rss };
    nanny.on(memory(1001));
    nanny.on(memory(951));
    assert_eq!(nanny.after(seconds(1), memory(400)), []);
    assert_eq!(nanny.after(seconds(1), memory(400)), [Action::Disown { address: address(1) }]);
    assert_eq!(nanny.after(seconds(60), memory(400)), []);
    // The disk goes on.
    assert_eq!(nanny.on(exited(KILLED)), [report(1, KILLED), remove(1), unregister(1)]);
    assert_eq!(nanny.on(Event::Unregistered), [Action::Spawn]);
}

#[test]
fn news_that_exit_or_close_overtook_are_harmless() {
    let mut nanny = Nanny::running();
    nanny.on(exited(KILLED));
    assert_eq!(nanny.on(started(1)), []);
    assert_eq!(nanny.on(Event::WorkerClosing { reason: "late".to_owned() }), [finish(None)]);
    assert_eq!(nanny.on(Event::Unregistered), []);
    assert_eq!(nanny.on(Event::Timeout), []);
}
