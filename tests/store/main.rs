//! The stores: one suite that every store passes, random histories checked for
//! linearizability, and what a file must survive.

#![allow(clippy::unwrap_used, reason = "a test that panics has said enough")]

mod abandoned_calls;
mod backups;
mod batch_get;
mod binary_crash;
mod buggy_stores;
mod creators;
mod databases;
mod disk;
mod erasure;
mod export_import;
mod fixtures;
#[path = "../support/forward.rs"]
mod forward;
mod held;
mod history_checker;
mod idempotency;
mod imports;
mod linearizability;
mod list;
mod litestream;
mod lone_replica;
mod migrations;
mod model;
mod outages;
mod pgbouncer;
mod poolers;
mod postgres_connection_metrics;
mod postgres_tls;
mod proxy;
mod queue;
mod readiness;
mod replicas;
mod rules;
mod slow_commits;
mod slow_reads;
mod sqlite_file;
mod standby;
mod strace;
mod subprocess;
#[path = "../support/mod.rs"]
mod support;
mod volume_snapshots;
mod watch_replicas;
mod watches;
mod workload;
mod workload_clients;
mod workload_watchers;
mod writes;

use support::database;
use user_service::domain;

/// Runs every rule on every store.
macro_rules! suite {
    ($($module:ident: $($rule:ident),+;)+) => {
        suite!(memory: $($($module::$rule)+)+);
        suite!(sqlite: $($($module::$rule)+)+);
        suite!(postgres: $($($module::$rule)+)+);
        suite!(postgres_behind_a_pooler: $($($module::$rule)+)+);
    };
    ($store:ident: $($module:ident::$rule:ident)+) => {
        mod $store {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $rule() {
                    let opened = crate::fixtures::$store();
                    crate::$module::$rule(opened.store.clone()).await;
                    opened.store.close().await;
                }
            )+
        }
    };
}

suite! {
    writes:
        a_created_user_is_found_by_id_and_by_address,
        an_id_or_an_address_is_taken_once,
        a_put_overwrites_by_id_or_by_address_or_creates,
        an_update_changes_what_it_names,
        every_field_is_stored_by_each_kind_of_write_and_found_by_each_read,
        an_address_that_was_given_up_is_free,
        a_stale_etag_writes_nothing,
        a_deleted_user_is_gone,
        only_a_lenient_delete_takes_a_missing_user,
        validation_alone_writes_nothing,
        revisions_count_every_write_without_gaps,
        an_id_made_anew_has_another_etag,
        what_is_only_validated_gives_no_etag_of_a_write_to_come,
        a_late_call_is_not_begun,
        a_write_goes_on_without_its_caller,
        a_closed_store_fails_every_call,
        an_open_store_says_that_it_works;
    idempotency:
        a_repeat_returns_the_user_as_it_was_left,
        a_repeated_delete_succeeds_and_deletes_nothing,
        a_repeat_is_known_before_its_etag_is_checked,
        a_request_id_serves_one_payload,
        a_failure_is_not_recorded,
        a_validation_is_not_recorded,
        repeats_at_once_write_once;
    list:
        pages_are_ordered_and_say_whether_there_is_more,
        pages_neither_repeat_nor_hide_users_when_others_come_and_go;
    batch_get:
        a_batch_is_answered_position_by_position,
        a_batch_is_one_snapshot;
    watches:
        what_is_told_adds_up_to_the_table,
        a_watch_without_initial_state_tells_what_comes,
        a_watch_resumed_anywhere_neither_skips_nor_repeats,
        a_token_of_another_history_is_refused,
        a_watch_that_falls_behind_is_cut_and_can_be_resumed;
    imports:
        an_import_creates_or_finds_and_overwrites_nobody,
        imports_of_the_same_users_at_once_create_each_once;
    abandoned_calls:
        a_call_may_end_at_any_await;
    linearizability:
        concurrent_histories_are_linearizable;
}
