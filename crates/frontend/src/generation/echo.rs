/// The prompts' own texts where choices begin with them (`echo`): each choice gets its prompt's
/// once, before anything else.
#[derive(Clone, Debug, Default)]
pub(crate) struct Echo {
    prompts: Vec<String>,
    choices_per_prompt: usize,
    /// By choice.
    given: Vec<bool>,
}

impl Echo {
    /// Of these prompts; their choices are numbered through all of them.
    pub(crate) fn new(prompts: Vec<String>, choices_per_prompt: u32) -> Self {
        let choices_per_prompt = choices_per_prompt as usize;
        Self {
            given: vec![false; prompts.len() * choices_per_prompt],
            prompts,
            choices_per_prompt,
        }
    }

    /// What the choice's next text is to begin with; empty but for its first, and where nothing is
    /// echoed.
    pub(crate) fn before(&mut self, choice: u32) -> &str {
        let choice = choice as usize;
        match self.given.get_mut(choice) {
            Some(given) if !*given => {
                *given = true;
                &self.prompts[choice / self.choices_per_prompt]
            }
            _ => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_choice_gets_its_prompt_once() {
        let mut echo = Echo::new(vec!["a".into(), "b".into()], 2);
        let texts = [3, 0, 3, 1, 2, 2].map(|choice| echo.before(choice).to_owned());
        assert_eq!(texts, ["b", "a", "", "a", "b", ""]);
        assert_eq!(Echo::default().before(0), "");
    }
}
