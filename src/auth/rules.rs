//! Which rights each method needs.
//!
//! A right is the name of a method of `user.v1` or of reflection. The article's methods
//! have no rights: they need those of the methods that they translate to.

use std::sync::Arc;

use crate::rpc::{
    call::Access,
    methods::{METHODS, Method, MethodId},
};

/// A set of rights, a bit for each method of [`METHODS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RightSet(u32);

const _: () = assert!(METHODS.len() <= 32, "a RightSet has a bit for each method");

impl RightSet {
    const fn of(rights: &[MethodId]) -> Self {
        let mut set = 0;
        let mut next = 0;
        while next < rights.len() {
            set |= 1 << rights[next] as u32;
            next += 1;
        }
        Self(set)
    }

    pub fn insert(&mut self, right: MethodId) {
        *self = self.union(Self::of(&[right]));
    }

    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn contains(self, needed: Self) -> bool {
        needed.0 != 0 && self.0 & needed.0 == needed.0
    }
}

/// What an identity may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// For every record.
    pub all: RightSet,
    /// For the record whose id is the identity's subject.
    pub own: RightSet,
}

impl Rights {
    pub fn union(self, other: Self) -> Self {
        Self { all: self.all.union(other.all), own: self.own.union(other.own) }
    }
}

/// What a method needs of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Nothing: probes have no identity.
    Open,
    /// Each of these rights.
    Needs(RightSet),
}

impl Rule {
    /// Which records a caller with these rights may touch; `None` where it may not call.
    pub fn access(self, rights: Rights, subject: Option<Arc<str>>) -> Option<Access> {
        match self {
            Self::Open => Some(Access::All),
            Self::Needs(needed) if rights.all.contains(needed) => Some(Access::All),
            // Rights of one's own hold methods of one record only, so a rule that needs any
            // other is never met by them.
            Self::Needs(needed) if rights.own.contains(needed) => subject.map(Access::Own),
            Self::Needs(_) => None,
        }
    }
}

/// The rule of a method. **Invariant:** a method without one does not compile.
pub const fn of(method: MethodId) -> Rule {
    use MethodId::{
        ArticleCreateUser, ArticleGetUser, BatchGetUsers, CreateUser, DeleteUser, GetUser, HealthCheck,
        HealthList, HealthWatch, ImportUsers, ListUsers, ReflectionV1, ReflectionV1Alpha, UpdateUser,
        WatchUsers,
    };
    let needed: &[MethodId] = match method {
        HealthCheck | HealthList | HealthWatch => return Rule::Open,
        ReflectionV1 | ReflectionV1Alpha => &[ReflectionV1],
        GetUser | ArticleGetUser => &[GetUser],
        // The article's overwrites a user that is there.
        ArticleCreateUser => &[CreateUser, UpdateUser],
        CreateUser | BatchGetUsers | ListUsers | UpdateUser | DeleteUser | ImportUsers | WatchUsers => {
            &[method]
        }
    };
    Rule::Needs(RightSet::of(needed))
}

/// The rights that a policy names by `package.Service/Method` or `package.Service/*`; none
/// where there is none of that name.
pub fn rights(name: &str) -> Vec<MethodId> {
    // The right of a method's name is one where the method needs no other.
    let is_right = |method: &&Method| of(method.id) == Rule::Needs(RightSet::of(&[method.id]));
    let named = |method: &&Method| match name.strip_suffix("/*") {
        Some(service) => method.service() == service,
        None => method.full_name() == name,
    };
    METHODS.iter().filter(is_right).filter(named).map(|method| method.id).collect()
}

/// Whether a method is about one record, which it names by its id: `self` may be said of it.
pub fn is_of_one_record(method: MethodId) -> bool {
    matches!(method, MethodId::GetUser | MethodId::UpdateUser | MethodId::DeleteUser)
}

#[cfg(test)]
mod tests {
    use MethodId::{ArticleCreateUser, CreateUser, GetUser, ListUsers, UpdateUser};

    use super::*;
    use crate::rpc::methods::Api;

    #[test]
    fn every_method_has_a_rule() {
        for method in &METHODS {
            let rule = of(method.id);
            if method.api == Api::Health {
                assert_eq!(rule, Rule::Open, "{}", method.path);
            } else {
                assert_ne!(rule, Rule::Open, "{} is open", method.path);
                assert_ne!(rule, Rule::Needs(RightSet::default()), "{} has no rule", method.path);
            }
        }
    }

    #[test]
    fn a_policy_names_the_methods_of_user_v1_and_reflection_and_no_others() {
        let named: Vec<_> = METHODS.iter().filter(|method| !rights(method.full_name()).is_empty()).collect();
        assert!(named.iter().all(|method| matches!(method.api, Api::UserV1 | Api::ReflectionV1)));
        assert_eq!((named.len(), rights("user.v1.UserService/*").len()), (9, 8));
        assert!(rights("*").is_empty() && rights("UserService/*").is_empty() && rights("/*").is_empty());
    }

    #[test]
    fn the_article_creates_with_the_rights_to_create_and_to_update() {
        let rule = of(ArticleCreateUser);
        let access = |all: &[MethodId], own: &[MethodId]| {
            rule.access(Rights { all: RightSet::of(all), own: RightSet::of(own) }, Some("me".into()))
        };
        assert_eq!(access(&[CreateUser, UpdateUser], &[]), Some(Access::All));
        assert_eq!(access(&[CreateUser], &[]), None);
        assert_eq!(access(&[UpdateUser], &[]), None);
        let own = access(&[CreateUser], &[UpdateUser]);
        assert_eq!(own, None, "the right to update oneself is no right to update");
    }

    #[test]
    fn the_right_to_ones_own_record_needs_a_subject() {
        let rights = Rights { own: RightSet::of(&[GetUser]), ..Rights::default() };
        assert_eq!(of(GetUser).access(rights, Some("me".into())), Some(Access::Own("me".into())));
        assert_eq!(of(GetUser).access(rights, None), None);
        assert_eq!(of(ListUsers).access(rights, Some("me".into())), None);
    }

    #[test]
    fn no_rights_are_enough_for_a_rule_that_needs_none_that_exist() {
        let everything = Rights { all: RightSet(u32::MAX), own: RightSet(u32::MAX) };
        assert_eq!(Rule::Needs(RightSet::default()).access(everything, Some("me".into())), None);
    }
}
