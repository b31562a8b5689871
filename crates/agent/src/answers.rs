//! The answers to the last pushes, so that a push sent again is answered and not applied twice.

use std::collections::VecDeque;

use patchwire_protocol::{
    codec::{self, Decode, Encode},
    limits,
    message::{
        push::{Answer, ClientId, Push, PushId},
        value::WireDigest,
    },
};

/// Written before the encoded answers, so that another layout is noticed.
const VERSION: u16 = 1;

/// The last [`limits::ANSWERS`] answers, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    answers: VecDeque<Recorded>,
}

/// An answer and what its push was bound to.
#[derive(Clone, Debug, Encode, Decode)]
#[bincode(crate = "patchwire_protocol::codec::bincode")]
pub(crate) struct Recorded {
    pub(crate) client: ClientId,
    pub(crate) target: WireDigest,
    pub(crate) answer: Answer,
}

/// What is known of a push that comes.
#[derive(Debug)]
pub(crate) enum Known<'a> {
    /// Nothing: it is new.
    No,
    /// It came before, and this was the answer.
    Answered(&'a Answer),
    /// Its id is that of another push.
    Taken,
}

impl Answers {
    /// Reads what [`Answers::encode`] wrote. What can't be read is lost: a push that is sent again
    /// is then judged by its base, as a new one.
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        match codec::decode_state::<(u16, Vec<Recorded>)>(bytes) {
            Ok((VERSION, answers)) => Self {
                answers: answers.into(),
            },
            _ => Self::default(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        codec::encode(&(VERSION, self.answers.iter().cloned().collect::<Vec<_>>()))
    }

    pub(crate) fn find(&self, push: &Push) -> Known<'_> {
        match self
            .answers
            .iter()
            .rev()
            .find(|known| known.answer.push_id == push.push_id)
        {
            None => Known::No,
            Some(known) if known.client == push.client && known.target == push.target => {
                Known::Answered(&known.answer)
            }
            Some(_) => Known::Taken,
        }
    }

    /// The answer to a push, whoever asks.
    pub(crate) fn get(&self, push_id: PushId) -> Option<&Answer> {
        let known = self.answers.iter().rev();
        known
            .map(|known| &known.answer)
            .find(|answer| answer.push_id == push_id)
    }

    pub(crate) fn newest(&self) -> Option<&Answer> {
        self.answers.back().map(|known| &known.answer)
    }

    /// Keeps an answer, in the place of one to the same push.
    pub(crate) fn add(&mut self, recorded: Recorded) {
        let push_id = recorded.answer.push_id;
        self.answers.retain(|known| known.answer.push_id != push_id);
        self.answers.push_back(recorded);
        let surplus = self.answers.len().saturating_sub(limits::ANSWERS);
        self.answers.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use patchwire_delta::Digest;
    use patchwire_protocol::{
        message::{
            push::{AppOptions, Base, Failure, FailureCode},
            value::Text,
        },
        session::answer::refusal,
    };

    use super::*;

    fn push(id: u8, client: u8, target: &str) -> Push {
        Push {
            push_id: PushId([id; 16]),
            client: ClientId([client; 16]),
            author: Text::default(),
            message: Text::default(),
            epoch: 1,
            base: Base::Unknown,
            target: WireDigest(Digest::of(target.as_bytes())),
            operations: 0,
            expires_ms: 0,
            force: false,
            sketch: None,
            links_may_leave: false,
            mirror: None,
            app: AppOptions::default(),
        }
    }

    fn recorded(push: &Push) -> Recorded {
        let answer = refusal(push, Failure::new(FailureCode::NotReady, "no"));
        Recorded {
            client: push.client,
            target: push.target,
            answer,
        }
    }

    #[test]
    fn a_push_is_known_by_its_id_and_bound_to_client_and_target() {
        let mut answers = Answers::default();
        answers.add(recorded(&push(1, 1, "a")));
        let answers = Answers::decode(&answers.encode());
        assert!(matches!(answers.find(&push(1, 1, "a")), Known::Answered(_)));
        assert!(matches!(answers.find(&push(1, 2, "a")), Known::Taken));
        assert!(matches!(answers.find(&push(1, 1, "b")), Known::Taken));
        assert!(matches!(answers.find(&push(2, 1, "a")), Known::No));
    }

    #[test]
    fn the_oldest_answers_make_room() {
        let mut answers = Answers::default();
        for id in 0..=255 {
            answers.add(recorded(&push(id, 1, "a")));
        }
        assert!(answers.get(PushId([0; 16])).is_some());
        let mut other = push(0, 1, "a");
        other.push_id = PushId([0xee, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        answers.add(recorded(&other));
        assert!(answers.get(PushId([0; 16])).is_none());
        assert!(answers.get(other.push_id).is_some());
    }

    #[test]
    fn what_cannot_be_read_is_lost_and_no_more() {
        assert!(Answers::decode(b"").newest().is_none());
        assert!(Answers::decode(b"garbage").newest().is_none());
    }
}
