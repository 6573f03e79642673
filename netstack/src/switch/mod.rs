//! The switch: public verbs.
