//! Pieces of work that stand alone, so that one tool can take their time and another count their instructions.

/// Operations in a turn, unless said otherwise.
pub const TURN: u32 = 1024;

/// A piece of work.
pub trait Work {
    /// How many operations a turn is.
    fn operations(&self) -> u32 {
        TURN
    }
    /// Does them: what is measured.
    fn turn(&mut self);
    /// Makes ready for the next turn, which is not measured.
    fn reset(&mut self) {}
}

/// A piece of work by name, and how to begin it.
pub struct Case {
    /// What is done, the address family, and with how many flows if that may matter.
    pub name: String,
    /// Makes it ready.
    pub begin: Box<dyn Fn() -> Box<dyn Work>>,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

/// A case by its parts.
pub(crate) fn begin<W: Work + 'static>(name: String, begin: impl Fn() -> W + 'static) -> Case {
    Case { name, begin: Box::new(move || Box::new(begin())) }
}

/// The piece of work with a name, whatever the numbers in it: `nat/lookup/v4/1000` or `lb/choose/10`.
pub fn case(name: &str) -> Option<Case> {
    let (group, name) = name.split_once('/')?;
    let numbers: Vec<u32> = name.split('/').filter_map(|part| part.parse().ok()).collect();
    let cases = match group {
        "nat" => crate::nat::cases(&numbers),
        "lb" => crate::lb::cases(&numbers),
        "flows" => crate::flows::cases(&numbers),
        "policies" => crate::policies::cases(&numbers),
        "services" => crate::services::cases(&numbers),
        "swap" => crate::swap::cases(&numbers),
        _ => return None,
    };
    cases.into_iter().find(|case| case.name == name)
}
