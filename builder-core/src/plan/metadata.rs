//! Instructions that change the config alone, and `WORKDIR`.

use super::graph::{Op, WorkdirOp};
use super::lower::{Item, Planner};
use super::scope::{self, DeclaredArg};
use super::state::StageState;
use super::{Problem, config, expose, gofmt, path, signal};
use crate::diagnostic::{Diagnostic, nearest};
use crate::dockerfile::{ArgDeclaration, InstructionKind, KeyValue, Word};

/// Does an instruction in which nothing is expanded and nothing can be wrong.
pub(super) fn plain_instruction(state: &mut StageState, kind: &InstructionKind) {
    let config = &mut state.config;
    let created_by = match kind {
        InstructionKind::Shell(shell) => {
            config::set_shell(config, shell);
            format!("SHELL {}", gofmt::list(shell))
        }
        InstructionKind::Cmd(command) => {
            let argv = config::argv(config, command);
            let created_by = format!("CMD {}", gofmt::quoted_list(&argv));
            config::set_cmd(config, argv);
            state.has_cmd = true;
            created_by
        }
        InstructionKind::Entrypoint(command) => {
            let argv = config::argv(config, command);
            let created_by = format!("ENTRYPOINT {}", gofmt::quoted_list(&argv));
            config::set_entrypoint(config, argv);
            // The CMD of another image was meant for another entry point.
            if !state.has_cmd {
                config::clear_cmd(config);
            }
            created_by
        }
        InstructionKind::Healthcheck(healthcheck) => {
            format!("HEALTHCHECK {}", config::set_healthcheck(config, healthcheck))
        }
        InstructionKind::Maintainer(author) => {
            config::set_author(config, &author.text);
            format!("MAINTAINER {}", author.text)
        }
        InstructionKind::Onbuild { trigger, .. } => return config::add_trigger(config, trigger),
        _ => unreachable!("every instruction that expands words is dispatched by its own name"),
    };
    state.record(created_by);
}

impl Planner<'_> {
    /// Expands the pairs of one instruction, all with the variables from before it.
    fn pairs(&mut self, state: &StageState, pairs: &[KeyValue]) -> Result<Vec<(String, String)>, Problem> {
        let mut expanded = vec![];
        for pair in pairs {
            let key = self.expander.word(&pair.key, state.scope())?;
            expanded.push((key, self.expander.word(&pair.value, state.scope())?));
        }
        Ok(expanded)
    }

    /// `ENV`
    pub(super) fn env_instruction(&mut self, state: &mut StageState, pairs: &[KeyValue]) -> Result<(), Problem> {
        let mut created_by = "ENV".to_owned();
        for (name, value) in self.pairs(state, pairs)? {
            created_by += &format!(" {name}={value}");
            config::set_env(&mut state.config, &name, &value);
            state.env.set(name, value);
        }
        state.record(created_by);
        Ok(())
    }

    /// `LABEL`
    pub(super) fn label_instruction(&mut self, state: &mut StageState, pairs: &[KeyValue]) -> Result<(), Problem> {
        let mut created_by = "LABEL".to_owned();
        for (key, value) in self.pairs(state, pairs)? {
            created_by += &format!(" {key}={value}");
            config::set_label(&mut state.config, &key, &value);
        }
        state.record(created_by);
        Ok(())
    }

    /// `ARG`: a build arg wins over the default here, and that over the global value. Unlike elsewhere, a default sees
    /// the names before it in the same line.
    pub(super) fn arg_instruction(
        &mut self,
        state: &mut StageState,
        declarations: &[ArgDeclaration],
    ) -> Result<(), Problem> {
        let mut said = vec![];
        for declaration in declarations {
            let name = &declaration.name.text;
            let value = match (self.args.get(name), &declaration.default) {
                (Some(value), _) => Some(value.to_owned()),
                (None, Some(default)) => Some(self.expander.word(default, state.scope())?),
                (None, None) => self.globals.get(name).map(str::to_owned),
            };
            said.push(value.as_ref().map_or_else(|| name.clone(), |value| format!("{name}={value}")));
            if let Some(value) = value.clone().filter(|_| !scope::is_not_environment(name)) {
                state.env.set(name, value);
            }
            state.declared.push(DeclaredArg { name: name.clone(), value });
        }
        state.record(format!("ARG {}", said.join(" ")));
        Ok(())
    }

    /// `USER`
    pub(super) fn user_instruction(&mut self, state: &mut StageState, word: &Word) -> Result<(), Problem> {
        let user = self.expander.word(word, state.scope())?;
        config::set_user(&mut state.config, &user);
        state.record(format!("USER {user}"));
        Ok(())
    }

    /// `EXPOSE`
    pub(super) fn expose_instruction(&mut self, state: &mut StageState, words: &[Word]) -> Result<(), Problem> {
        let mut ports = vec![];
        for word in words {
            for spec in self.expander.words(word, state.scope())? {
                let parsed = expose::parse(&spec).map_err(|why| {
                    let problem = Diagnostic::error("expose-invalid", format!("invalid port {spec:?}: {why}"));
                    Box::new(problem.at(word.span).with_hint("write PORT[-PORT][/tcp|/udp|/sctp]"))
                })?;
                ports.extend(parsed);
            }
        }
        let number = |port: &String| port.split('/').next().and_then(|number| number.parse::<u16>().ok());
        ports.sort_by_key(|port| (number(port), port.clone()));
        ports.dedup();
        state.record(format!("EXPOSE {}", gofmt::list(&ports)));
        for port in ports {
            config::add_port(&mut state.config, port);
        }
        Ok(())
    }

    /// `VOLUME`
    pub(super) fn volume_instruction(&mut self, state: &mut StageState, words: &[Word]) -> Result<(), Problem> {
        let mut paths = vec![];
        for word in words {
            let path = self.expander.word(word, state.scope())?;
            if path.is_empty() {
                let problem = Diagnostic::error("volume-empty", "the path of a volume is empty").at(word.span);
                return Err(Box::new(problem));
            }
            config::add_volume(&mut state.config, &path);
            paths.push(path);
        }
        state.record(format!("VOLUME {}", gofmt::list(&paths)));
        Ok(())
    }

    /// `STOPSIGNAL`
    pub(super) fn stop_signal_instruction(&mut self, state: &mut StageState, word: &Word) -> Result<(), Problem> {
        let text = self.expander.word(word, state.scope())?;
        if !signal::is_signal(&text) {
            let upper = text.to_uppercase();
            let near = nearest(upper.strip_prefix("SIG").unwrap_or(&upper), signal::names());
            let problem = Diagnostic::error("signal-unknown", format!("{text:?} is not a signal"))
                .at(word.span)
                .with_hint_if(near.map(|near| format!("did you mean \"SIG{near}\"?")));
            return Err(Box::new(problem));
        }
        config::set_stop_signal(&mut state.config, &text);
        state.record(format!("STOPSIGNAL {text}"));
        Ok(())
    }

    /// `WORKDIR`: a step of its own, unless it is the root. An absolute path gets into the config as it is written.
    pub(super) fn workdir_instruction(
        &mut self,
        state: &mut StageState,
        item: &Item<'_>,
        word: &Word,
    ) -> Result<(), Problem> {
        let written = self.expander.word(word, state.scope())?;
        let shown = self.expander.for_show(&item.instruction.original, &state.env);
        let directory = path::absolute(&state.workdir(), &written);
        let said = if written.starts_with('/') { written } else { directory.clone() };
        config::set_workdir(&mut state.config, &said);
        let created_by = format!("WORKDIR {said}");
        if directory == "/" {
            state.record(created_by);
            return Ok(());
        }
        let user = config::user(&state.config).to_owned();
        let op = Op::Workdir(WorkdirOp { parent: state.root, path: directory, user });
        let step = self.steps.add(op, item.source(state), item.label(&upper_keyword(&shown)));
        state.record_layer(created_by, step);
        Ok(())
    }
}

/// Returns `text` with its first word in capitals.
pub(super) fn upper_keyword(text: &str) -> String {
    match text.split_once(' ') {
        Some((keyword, rest)) => format!("{} {rest}", keyword.to_uppercase()),
        None => text.to_uppercase(),
    }
}
