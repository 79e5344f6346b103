use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

/// SmolLM2's template: text only, with a default system message.
const SMOLLM: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

fn render(template: &str, messages: &[serde_json::Value]) -> Result<String, TemplateError> {
    ChatTemplate::new(template).unwrap().render(&TemplateInput {
        messages,
        add_generation_prompt: true,
        ..TemplateInput::default()
    })
}

fn user(content: serde_json::Value) -> serde_json::Value {
    json!({"role": "user", "content": content})
}

#[test]
fn renders_a_conversation() {
    let messages = [
        user(json!("Hi")),
        json!({"role": "assistant", "content": "Hello"}),
    ];
    assert_eq!(
        render(SMOLLM, &messages).unwrap(),
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging \
         Face<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n\
         <|im_start|>assistant\n"
    );
    let chatml = ChatTemplate::chatml();
    let input = TemplateInput {
        messages: &messages[..1],
        ..TemplateInput::default()
    };
    assert_eq!(
        chatml.render(&input).unwrap(),
        "<|im_start|>user\nHi<|im_end|>\n"
    );
}

#[test]
fn parts_become_text_where_the_template_takes_text() {
    let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
    let prompt = render(SMOLLM, &[user(parts)]).unwrap();
    assert!(prompt.contains("user\na\nb<|im_end|>"), "{prompt}");

    let image = json!([{"type": "image_url", "image_url": {"url": "data:"}}]);
    let error = render(SMOLLM, &[user(json!("x")), user(image)]).unwrap_err();
    assert!(
        matches!(&error, TemplateError::UnsupportedPart { index: 1, kind } if kind == "image_url"),
        "{error:?}"
    );
}

#[test]
fn text_becomes_a_part_where_the_template_takes_parts() {
    let template = "{% for m in messages %}{% for part in m.content %}[{{ part.text }}]{% endfor %}{% endfor %}";
    assert_eq!(render(template, &[user(json!("a"))]).unwrap(), "[a]");
    let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
    assert_eq!(render(template, &[user(parts)]).unwrap(), "[a][b]");
    assert_eq!(render(template, &[user(json!(null))]).unwrap(), "");
}

#[test]
fn both_forms_are_kept_where_the_template_takes_both() {
    let template = "{% for m in messages %}{% if m.content is string %}<{{ m.content }}>{% else %}\
                    {% for part in m.content %}[{{ part.text }}]{% endfor %}{% endif %}{% endfor %}";
    assert_eq!(render(template, &[user(json!("a"))]).unwrap(), "<a>");
    assert_eq!(
        render(template, &[user(json!([{"type": "text", "text": "a"}]))]).unwrap(),
        "[a]"
    );
}

#[test]
fn a_written_out_list_is_not_taking_parts() {
    let template = "{% for m in messages %}{{ m.content }}{% endfor %}";
    assert_eq!(
        render(template, &[user(json!([{"type": "text", "text": "a"}]))]).unwrap(),
        "a"
    );
}

#[test]
fn tool_calls_and_tools_reach_the_template() {
    let template = "{{ tools | tojson }}|{% for m in messages %}{% for call in m.tool_calls %}\
                    {{ call.function.name }}({{ call.function.arguments | tojson }}){% endfor %}{% endfor %}";
    let template = ChatTemplate::new(template).unwrap();
    let messages = [json!({"role": "assistant", "content": null, "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"z\": 1, \"a\": 2.50}"}},
        {"id": "2", "type": "function", "function": {"name": "g", "arguments": ""}},
    ]})];
    let tools = [json!({"type": "function", "function": {"name": "f", "strict": true}})];
    let input = TemplateInput {
        messages: &messages,
        tools: Some(&tools),
        ..TemplateInput::default()
    };
    assert_eq!(
        template.render(&input).unwrap(),
        r#"[{"type": "function", "function": {"name": "f", "strict": true}}]|f({"z": 1, "a": 2.5})g({})"#
    );
    let input = TemplateInput {
        tools: None,
        messages: &[],
        ..input
    };
    assert_eq!(template.render(&input).unwrap(), "null|");

    let broken = [json!({"role": "assistant", "tool_calls": [{"function": {"arguments": "{"}}]})];
    let error = template
        .render(&TemplateInput {
            messages: &broken,
            ..input
        })
        .unwrap_err();
    assert!(
        matches!(error, TemplateError::InvalidMessage { index: 0, .. }),
        "{error:?}"
    );
}

#[test]
fn the_dialect_is_that_of_transformers() {
    for (template, expected) in [
        ("  {% if true %}\n  x\n  {% endif %}\ny\n", "  x\ny"),
        (
            "{% for i in range(5) %}{% if i == 1 %}{% continue %}{% elif i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}",
            "02",
        ),
        (
            "{% set ns = namespace(n=0) %}{% for m in messages[::-1] %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
            "1",
        ),
        (
            "{{ ' a '.strip() + 'b-c'.split('-')[-1] + 'x'.upper() }}",
            "acX",
        ),
        (
            "{% for k, v in {'b': 1, 'a': none}.items() %}{{ k }}={{ v }};{% endfor %}",
            "b=1;a=None;",
        ),
        (
            "{{ true }} {{ nothing }} {{ nothing is defined }} {{ tools is none }}",
            "True  False True",
        ),
        ("{{ {'a': ['x', 1.0, true]} }}", "{'a': ['x', 1.0, True]}"),
        (
            "{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m('<&>') }}",
            "<<&>>",
        ),
        (
            "{% for m in messages %}{{ loop.previtem is defined }}{% endfor %}",
            "False",
        ),
        ("{% generation %}\nx{% endgeneration %}", "x"),
        (
            "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
            "1",
        ),
        ("{{ strftime_now is defined }}", "False"),
    ] {
        assert_eq!(
            render(template, &[user(json!("q"))]).unwrap(),
            expected,
            "{template}"
        );
    }
}

#[test]
fn time_and_further_names_are_passed_in() {
    let template = ChatTemplate::new(
        "{{ bos_token }}{{ strftime_now('%d %b %Y') }}{% if enable_thinking %} thinking{% endif %}\
         {{ documents | map(attribute='title') | join }}{{ add_generation_prompt }}",
    )
    .unwrap();
    let kwargs = json!({"enable_thinking": true, "add_generation_prompt": 7});
    let documents = [json!({"title": " t"})];
    let input = TemplateInput {
        bos_token: Some("<s>"),
        documents: Some(&documents),
        now_unix_seconds: Some(1_721_998_800),
        kwargs: kwargs.as_object(),
        ..TemplateInput::default()
    };
    assert_eq!(
        template.render(&input).unwrap(),
        "<s>26 Jul 2024 thinking t7"
    );

    let kwargs = json!({"messages": []});
    let error = template
        .render(&TemplateInput {
            kwargs: kwargs.as_object(),
            ..input
        })
        .unwrap_err();
    assert!(matches!(error, TemplateError::ReservedName(name) if name == "messages"));
}

#[test]
fn whose_fault_an_error_is() {
    let class = |error: TemplateError| {
        let error = forebay_protocols::Error::from(error);
        (error.class.as_str(), error.message, error.param)
    };
    assert!(matches!(
        ChatTemplate::new("{% if %}"),
        Err(TemplateError::Syntax(_))
    ));
    let broken = ChatTemplate::new("{{ messages | no_such_filter }}")
        .map(drop)
        .unwrap_err();
    assert_eq!(
        class(broken),
        (
            "internal",
            "the model's chat template is broken".into(),
            None
        )
    );

    let alternate = "{% if messages | length > 1 %}{{ raise_exception('roles must alternate') }}{% endif %}{{ messages[0].content }}";
    let error = render(alternate, &[user(json!("a")), user(json!("b"))]).unwrap_err();
    assert_eq!(
        class(error),
        (
            "invalid_request",
            "roles must alternate".into(),
            Some("messages".into())
        )
    );
    let partial = "{{ messages[0].content }}{% if messages | length > 1 %}{{ messages[1].name.first }}{% endif %}";
    let error = render(partial, &[user(json!("a")), user(json!("b"))]).unwrap_err();
    assert_eq!(
        class(error),
        (
            "invalid_request",
            "chat template cannot render these messages".into(),
            Some("messages".into())
        )
    );
    let error = render(SMOLLM, &[json!({"content": "a"})]).unwrap_err();
    assert_eq!(
        class(error),
        (
            "invalid_request",
            "messages[0]: a message must have a role".into(),
            Some("messages[0]".into())
        )
    );
}

#[test]
fn output_and_work_are_bounded() {
    let limits = TemplateLimits {
        fuel: 10_000,
        output_bytes: 100,
    };
    let messages = [user(json!("x".repeat(60)))];
    let input = TemplateInput {
        messages: &messages,
        ..TemplateInput::default()
    };

    let twice = ChatTemplate::with_limits("{% for i in range(n | default(0)) %}{{ messages[0].content }}{% endfor %}{{ messages[0].content }}", limits).unwrap();
    let kwargs = json!({"n": 0});
    assert!(
        twice
            .render(&TemplateInput {
                kwargs: kwargs.as_object(),
                ..input
            })
            .is_ok()
    );
    let kwargs = json!({"n": 1});
    let error = twice
        .render(&TemplateInput {
            kwargs: kwargs.as_object(),
            ..input
        })
        .unwrap_err();
    assert!(
        matches!(error, TemplateError::TooLong { limit_bytes: 100 }),
        "{error:?}"
    );

    for endless in [
        "{% for i in range(n | default(0)) %}{% for j in range(n | default(0)) %}{% endfor %}{% endfor %}{{ messages[0].content }}",
        "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(n | default(0)) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ messages[0].content }}",
        "{% macro m(n) %}{% if n %}{% for i in range(n | default(0)) %}{% set x = m(n // 3) %}{% endfor %}{% endif %}{% endmacro %}{{ m(n | default(0)) }}{{ messages[0].content }}",
    ] {
        let template = ChatTemplate::with_limits(endless, limits).unwrap();
        let kwargs = json!({"n": 1000});
        let error = template
            .render(&TemplateInput {
                kwargs: kwargs.as_object(),
                ..input
            })
            .unwrap_err();
        assert!(
            matches!(error, TemplateError::OutOfFuel { limit: 10_000 }),
            "{endless}: {error:?}"
        );
    }
}

#[test]
fn a_message_keeps_the_order_of_its_fields() {
    let message =
        json!({"z": 1, "content": [{"type": "text", "text": "a"}], "role": "user", "a": 2});
    let template = "{{ messages[0] | tojson }}{{ messages[0].content }}";
    assert_eq!(
        render(template, &[message]).unwrap(),
        r#"{"z": 1, "content": "a", "role": "user", "a": 2}a"#
    );
}

/// What templates are made of, so that many of the random ones are templates.
const PIECES: [&str; 24] = [
    "{%",
    "%}",
    "{{",
    "}}",
    " for m in messages ",
    " endfor ",
    " if ",
    " endif ",
    " m",
    ".content",
    "['role']",
    "|",
    "trim",
    "tojson",
    " set x = ",
    "'a'",
    " * 99999999",
    "[1:]",
    "[-1]",
    " + ",
    "strftime_now('%",
    "Y')",
    "raise_exception('no')",
    "range(999999999)",
];

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|value| json!(value)),
        any::<i64>().prop_map(|value| json!(value)),
        any::<String>().prop_map(|value| json!(value)),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let name = prop::sample::select(vec!["role", "content", "type", "text", "tool_calls", "x"]);
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|values| json!(values)),
            prop::collection::btree_map(name, inner, 0..4).prop_map(|fields| json!(fields)),
        ]
    })
}

proptest! {
    /// Any text for a template and any JSON for messages: a prompt within its bound, or an error.
    #[test]
    fn any_template_and_messages_are_a_bounded_prompt_or_an_error(
        pieces in vec(prop_oneof![
            4 => prop::sample::select(PIECES.to_vec()).prop_map(str::to_owned),
            1 => any::<String>(),
        ], 0..14),
        messages in vec(any_json(), 0..3),
    ) {
        let limits = TemplateLimits { fuel: 10_000, output_bytes: 1000 };
        let any = ChatTemplate::with_limits(&pieces.concat(), limits);
        let smollm = ChatTemplate::with_limits(SMOLLM, limits).unwrap();
        for template in any.into_iter().chain([smollm]) {
            let prompt = template.render(&TemplateInput {
                messages: &messages,
                add_generation_prompt: true,
                now_unix_seconds: Some(0),
                ..TemplateInput::default()
            });
            if let Ok(prompt) = prompt {
                prop_assert!(prompt.len() <= limits.output_bytes);
            }
        }
    }
}
