//! What stands, and what becomes of a push by its header. Pure but for reading a record.

use std::sync::Arc;

use patchwire_delta::Digest;
use patchwire_protocol::{
    app::AppState,
    codec::{self, Decode, Encode},
    listing::Digests,
    manifest::Manifest,
    message::{
        push::{
            Answer, AppOptions, Base, ClientId, ConflictWith, Failure, FailureCode, OfferId, Push,
            PushId, PushStatus,
        },
        value::{Text, WireDigest},
    },
    path::RelativePath,
    session::answer::{conflict, refusal},
};
use patchwire_tree::Store;

use crate::answers::{Answers, Known};

/// What stands, for everyone who asks while a push holds the store.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) epoch: u64,
    pub(crate) root: Option<Digest>,
    pub(crate) entries: u64,
    /// Whether the app was seen to be ready on it.
    pub(crate) verified: bool,
    pub(crate) push: Option<(PushId, Meta)>,
}

/// What is kept with a commit.
#[derive(Clone, Debug, Encode, Decode)]
#[bincode(crate = "patchwire_protocol::codec::bincode")]
pub(crate) struct Meta {
    pub(crate) client: ClientId,
    pub(crate) author: Text,
    pub(crate) message: Text,
    pub(crate) at_ms: u64,
    /// What the push changed, at most [`patchwire_protocol::limits::LISTED`] paths.
    pub(crate) paths: Vec<RelativePath>,
    pub(crate) app: AppOptions,
}

/// What is made of a push by its header.
#[derive(Debug)]
pub(crate) enum Judgement {
    /// Its base is what stands here, or what was offered.
    Accept,
    /// It isn't: say what does.
    Offer,
    /// There is an answer already.
    Answer(Box<Answer>),
}

/// What stands here to build upon.
#[derive(Clone, Debug)]
pub(crate) struct Offered {
    pub(crate) epoch: u64,
    pub(crate) managed: bool,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) id: OfferId,
    pub(crate) digests: Digests,
}

impl Standing {
    pub(crate) fn of(store: &Store) -> Self {
        let record = store.committed();
        let push = record.and_then(|record| {
            // Ours to write and to read: of another version, only who pushed is not known.
            let meta = codec::decode_state(&record.meta).ok()?;
            Some((PushId(record.push_id), meta))
        });
        Self {
            epoch: store.epoch(),
            root: record.map(|record| record.root.0),
            entries: store.managed().len() as u64,
            verified: record.is_some_and(|record| record.verified),
            push,
        }
    }

    /// Says what becomes of a push that came `came_ms` after the greeting. `offered` is what was offered to it
    /// before, and stands as long as the push has its turn. `restarts` tells whether the app is
    /// started anew for a push, so that one seen to be ready runs what stands.
    pub(crate) fn judge(
        &self,
        push: &Push,
        offered: Option<&Offered>,
        answers: &Answers,
        (app, restarts): (AppState, bool),
        came_ms: u64,
    ) -> Judgement {
        let answer = |answer: Answer| {
            Judgement::Answer(Box::new(Answer {
                epoch: self.epoch,
                root: self.root.map(WireDigest),
                app: Some(app),
                ..answer
            }))
        };
        let refuse = |code, message: &str| answer(refusal(push, Failure::new(code, message)));
        match answers.find(push) {
            Known::No => {}
            // One kept before its end was known says nothing of what stands.
            Known::Answered(known) if known.root.is_none() => return answer(known.clone()),
            Known::Answered(known) => return Judgement::Answer(Box::new(known.clone())),
            Known::Taken => {
                return refuse(
                    FailureCode::PushIdTaken,
                    "the push id is that of another push",
                );
            }
        }
        let stands = self.root == Some(push.target.0);
        // What a mirror has to take away is known once that was offered.
        let is_all = push.mirror.is_none()
            || (push.operations == 0 && matches!(push.base, Base::Offered(_)));
        let last = self.push.as_ref();
        let runs_so = last.is_some_and(|(_, meta)| meta.app == push.app);
        // The very push that made it, if the agent ended before it could keep its answer.
        let made_it = last.is_some_and(|(push_id, _)| *push_id == push.push_id);
        // An app that had to be started again since is not well on it, whatever it was then.
        let is_well = app.running && app.restarts == 0;
        if stands && is_all && self.verified && runs_so && (made_it || is_well) {
            return answer(Answer {
                status: if made_it {
                    PushStatus::Done
                } else {
                    PushStatus::NoChanges
                },
                failure: None,
                verified: restarts,
                ..refusal(push, Failure::new(FailureCode::Invalid, ""))
            });
        }
        if came_ms >= push.expires_ms {
            return refuse(
                FailureCode::Expired,
                "the push came after it had expired: push again",
            );
        }
        let fits = push.epoch == self.epoch
            && match push.base {
                Base::Unknown => false,
                // A mirror is of what lies on the disk, which only an offer says.
                Base::Committed(root) => self.root == Some(root.0) && push.mirror.is_none(),
                Base::Offered(id) => offered.is_some_and(|offered| offered.id == id),
            };
        if fits {
            return Judgement::Accept;
        }
        match last {
            Some((push_id, meta))
                if meta.client != push.client && !push.force && !(stands && runs_so) =>
            {
                answer(conflict(
                    push,
                    ConflictWith {
                        author: meta.author.clone(),
                        at_ms: meta.at_ms,
                        push_id: *push_id,
                        paths: meta.paths.clone(),
                    },
                ))
            }
            _ => Judgement::Offer,
        }
    }
}

#[cfg(test)]
mod tests {
    use patchwire_protocol::message::push::Patterns;

    use super::*;
    use crate::answers::Recorded;

    fn digest(tree: &str) -> Digest {
        Digest::of(tree.as_bytes())
    }

    fn push(client: u8, base: Base, target: &str) -> Push {
        Push {
            push_id: PushId([9; 16]),
            client: ClientId([client; 16]),
            author: Text::default(),
            message: Text::default(),
            epoch: 1,
            base,
            target: WireDigest(digest(target)),
            operations: 0,
            expires_ms: 101,
            force: false,
            sketch: None,
            links_may_leave: false,
            mirror: None,
            app: AppOptions::default(),
        }
    }

    /// What stands is `tree`, pushed by client 1.
    fn standing(tree: &str) -> Standing {
        let meta = Meta {
            client: ClientId([1; 16]),
            author: Text::cut("ana"),
            message: Text::default(),
            at_ms: 5,
            paths: Vec::new(),
            app: AppOptions::default(),
        };
        let push = Some((PushId([1; 16]), meta));
        Standing {
            epoch: 1,
            root: Some(digest(tree)),
            entries: 1,
            verified: true,
            push,
        }
    }

    fn offered(id: u64) -> Offered {
        Offered {
            epoch: 1,
            managed: true,
            manifest: Arc::default(),
            id: OfferId(id),
            digests: Digests::Short,
        }
    }

    fn judge(standing: &Standing, push: &Push, offered: Option<&Offered>) -> Judgement {
        standing.judge(push, offered, &Answers::default(), (well(), true), 100)
    }

    fn well() -> AppState {
        AppState {
            running: true,
            pid: Some(1),
            ..AppState::default()
        }
    }

    fn status(judgement: Judgement) -> (PushStatus, Option<FailureCode>) {
        match judgement {
            Judgement::Answer(answer) => (answer.status, answer.failure.map(|f| f.code)),
            other => panic!("{other:?}"),
        }
    }

    fn committed(tree: &str) -> Base {
        Base::Committed(WireDigest(digest(tree)))
    }

    #[test]
    fn a_push_on_what_stands_is_taken_whoever_sends_it() {
        for client in [1, 2] {
            let push = push(client, committed("old"), "new");
            assert!(matches!(
                judge(&standing("old"), &push, None),
                Judgement::Accept
            ));
        }
    }

    #[test]
    fn a_push_on_something_else_is_offered_what_stands_if_it_is_the_same_clients() {
        for base in [committed("older"), Base::Unknown, Base::Offered(OfferId(1))] {
            let judged = judge(&standing("old"), &push(1, base, "new"), Some(&offered(2)));
            assert!(matches!(judged, Judgement::Offer));
        }
        let other_epoch = Push {
            epoch: 2,
            ..push(1, committed("old"), "new")
        };
        assert!(matches!(
            judge(&standing("old"), &other_epoch, None),
            Judgement::Offer
        ));
        let base = Base::Offered(OfferId(2));
        let judged = judge(&standing("old"), &push(1, base, "new"), Some(&offered(2)));
        assert!(matches!(judged, Judgement::Accept));
    }

    #[test]
    fn another_clients_push_in_between_is_a_conflict_unless_forced_or_the_same_tree() {
        let conflicting = push(2, committed("older"), "new");
        assert_eq!(
            status(judge(&standing("old"), &conflicting, None)),
            (PushStatus::Conflict, Some(FailureCode::Conflict))
        );
        let forced = Push {
            force: true,
            ..conflicting
        };
        assert!(matches!(
            judge(&standing("old"), &forced, None),
            Judgement::Offer
        ));
        let same = push(2, Base::Unknown, "old");
        assert_eq!(
            status(judge(&standing("old"), &same, None)),
            (PushStatus::NoChanges, None)
        );
    }

    #[test]
    fn a_mirror_is_offered_what_lies_there_before_it_changes_nothing() {
        let mirror = |base, operations| Push {
            operations,
            mirror: Some(Patterns::default()),
            ..push(1, base, "old")
        };
        for base in [Base::Unknown, committed("old")] {
            let judged = judge(&standing("old"), &mirror(base, 0), None);
            assert!(matches!(judged, Judgement::Offer));
        }
        let judge = |operations| {
            let mirror = mirror(Base::Offered(OfferId(2)), operations);
            judge(&standing("old"), &mirror, Some(&offered(2)))
        };
        assert!(matches!(judge(1), Judgement::Accept));
        assert_eq!(status(judge(0)), (PushStatus::NoChanges, None));
    }

    #[test]
    fn a_push_whose_answer_was_lost_with_the_agent_is_done_if_its_tree_stands() {
        let again = Push {
            push_id: PushId([1; 16]),
            ..push(1, Base::Unknown, "old")
        };
        assert_eq!(
            status(judge(&standing("old"), &again, None)),
            (PushStatus::Done, None)
        );
    }

    #[test]
    fn a_tree_that_stands_is_pushed_again_if_it_was_never_ready_or_the_app_is_run_otherwise() {
        let again = push(1, committed("old"), "old");
        let unverified = Standing {
            verified: false,
            ..standing("old")
        };
        assert!(matches!(
            judge(&unverified, &again, None),
            Judgement::Accept
        ));
        let app = AppOptions {
            ready_timeout_ms: Some(1),
            ..AppOptions::default()
        };
        let otherwise = Push { app, ..again };
        assert!(matches!(
            judge(&standing("old"), &otherwise, None),
            Judgement::Accept
        ));
    }

    #[test]
    fn an_app_that_is_not_well_is_no_reason_to_do_nothing() {
        let again = push(1, committed("old"), "old");
        let crashed = AppState {
            restarts: 1,
            ..well()
        };
        for app in [AppState::default(), crashed] {
            let judged = standing("old").judge(&again, None, &Answers::default(), (app, true), 100);
            assert!(matches!(judged, Judgement::Accept), "{judged:?}");
        }
    }

    #[test]
    fn another_clients_way_to_run_the_app_is_not_replaced_unasked() {
        let app = AppOptions {
            ready_timeout_ms: Some(1),
            ..AppOptions::default()
        };
        let otherwise = Push {
            app,
            ..push(2, Base::Unknown, "old")
        };
        assert_eq!(
            status(judge(&standing("old"), &otherwise, None)),
            (PushStatus::Conflict, Some(FailureCode::Conflict))
        );
    }

    #[test]
    fn a_push_is_answered_once_and_not_after_it_expired() {
        let late = Push {
            expires_ms: 100,
            ..push(1, committed("old"), "new")
        };
        assert_eq!(
            status(judge(&standing("old"), &late, None)),
            (PushStatus::Failed, Some(FailureCode::Expired))
        );

        let mut answers = Answers::default();
        let answer = refusal(&late, Failure::new(FailureCode::NotReady, "no"));
        answers.add(Recorded {
            client: late.client,
            target: late.target,
            answer,
        });
        let judge = |push: &Push| standing("old").judge(push, None, &answers, (well(), true), 100);
        assert_eq!(
            status(judge(&late)),
            (PushStatus::Failed, Some(FailureCode::NotReady))
        );
        let taken = Push {
            client: ClientId([2; 16]),
            ..late
        };
        assert_eq!(
            status(judge(&taken)),
            (PushStatus::Failed, Some(FailureCode::PushIdTaken))
        );
    }
}
