"""The model card: what a model is, how to use it, what it was made of, how good it is.

``README.md`` is for people, with the front matter of the Hugging Face hub (Mitchell et al. 2019,
https://arxiv.org/abs/1810.03993, on what a card should say); ``card.json`` holds the same as data.
Nothing is invented: what is not known is said not to be known. No date and no path of this
machine stand in it, so the same model with the same records gives the same bytes.
"""

import re
from pathlib import Path

from data_prep.files import one_line, read_lines
from data_prep.known_sets import import_mtdata
from data_prep.manifest import commit, package_versions, read_json, read_manifest, write_json
from data_prep.vocabulary import TOKENISER_FILE
from fairseq_plugins.export.history import training_steps

CARD = "README.md"
DATA = "card.json"
TEMPLATE = "template.md"
SCORES = "scores.json"
LICENCES = "licences.tsv"
REFERENCES = "references.bib"
LICENCE_COLUMNS = ("id", "role", "licence", "citation", "address", "lines")

# those that the weights and translations depend on
PACKAGES = ("python", "ctranslate2", "fairseq-fixed", "fairseq", "sacrebleu", "sacremoses",
            "sentencepiece", "subword-nmt", "torch")  # fmt: skip

# what is cited, and when: the name in ``steps`` or elsewhere that calls for it
PAPERS = {
    "dad": ("Distill, Adapt, Distill", "Gordon & Duh 2020", "https://arxiv.org/abs/2003.02877"),
    "distilled": ("sequence-level distillation", "Kim & Rush 2016",
                  "https://aclanthology.org/D16-1139"),
    "word": ("word-level distillation", "Kim & Rush 2016", "https://aclanthology.org/D16-1139"),
    "selective": ("selective distillation", "Wang et al. 2021", "https://arxiv.org/abs/2105.12967"),
    "sequence-risk": ("minimum-risk training", "Shen et al. 2016",
                      "https://aclanthology.org/P16-1159"),
    "anchored": ("adaptation held near the general model", "Khayrallah et al. 2018",
                 "https://aclanthology.org/W18-2705"),
    "ewc": ("elastic weight consolidation", "Thompson et al. 2019",
            "https://aclanthology.org/N19-1209"),
    "replay": ("mixing in general text", "Chu et al. 2017", "https://aclanthology.org/P17-2061"),
    "lora": ("low-rank adaptation", "Hu et al. 2021", "https://arxiv.org/abs/2106.09685"),
    "from_teacher": ("starting from layers of the teacher", "Shleifer & Rush 2020",
                     "https://arxiv.org/abs/2010.13002"),
    "average": ("averaging checkpoints", "Junczys-Dowmunt et al. 2016",
                "https://aclanthology.org/W16-2316"),
    "shortlist": ("lexical shortlists", "Jean et al. 2015", "https://aclanthology.org/P15-1001"),
    "fairseq": ("fairseq", "Ott et al. 2019", "https://aclanthology.org/N19-4009"),
    "ctranslate2": ("CTranslate2", "Klein et al. 2020", "https://aclanthology.org/2020.amta-research.9"),
    "sentencepiece": ("SentencePiece", "Kudo & Richardson 2018",
                      "https://aclanthology.org/D18-2012"),
    "subword-nmt": ("byte-pair encoding", "Sennrich et al. 2016",
                    "https://aclanthology.org/P16-1162"),
    "sacrebleu": ("sacreBLEU", "Post 2018", "https://aclanthology.org/W18-6319"),
}  # fmt: skip


# -- collecting ------------------------------------------------------------------------------


def collect(model, exported, *, counts, settings, weights, parity=None, name=None, domain=None,
            licence=None, texts=(), licences=(), scores=None, speed=None, speed_row=None,
            known_as=()):  # fmt: skip
    """What ``card.json`` holds, a dictionary.

    Args:
        model: ``ModelFolder`` that was exported.
        exported: the EXPORTED folder, complete but for the card.
        counts, settings: those of its manifest.
        weights: {file: SHA-256} of ``model.pt`` and of ``model.bin``.
        parity: record of ``parity.measure`` with "max_loss", or None.
        name: of the model; None: made of domain and languages.
        domain: intended domain.
        licence: SPDX identifier of the model's own licence.
        texts: text folders of a recipe that it was trained on.
        licences: files like a raw folder's ``licences.tsv``, with ``references.bib`` beside them;
            those of the folders that ``texts`` were made of are found.
        scores: folder or ``scores.json`` of ``dad-evaluate``.
        speed: ``speed.json`` of ``dad-speed``.
        speed_row: name of the model in there; None: found by ``known_as``.
        known_as: paths under which the model may be known elsewhere.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is of another model, or not what it should be.
    """
    src_lang, tgt_lang = model.vocabulary.langs
    steps = training_steps(model.path)
    data = [_text(folder) for folder in texts]
    found = [path for folder in texts for path in _licences_of(Path(folder))]
    sets, references = _licences([*map(Path, licences), *found])
    card = {
        "name": name or "-".join([domain or "translation", src_lang, tgt_lang]),
        "source_lang": src_lang,
        "target_lang": tgt_lang,
        "domain": domain,
        "licence": licence,
        "compute_type": settings["compute_type"],
        "shortlist": settings.get("shortlist"),
        "counts": counts,
        "positions": settings["positions"],
        "vocabulary": {
            "kind": model.vocabulary.kind,
            "tokenised": TOKENISER_FILE in model.vocabulary.files,
            "pieces": len(list(read_lines(model.vocabulary.dictionary(tgt_lang)))),
            "files": model.vocabulary.files,
        },
        "averaged_checkpoints": _averaged(model.path),
        "training": steps,
        "texts": data,
        "data_licences": sets,
        "references": references,
        "scores": _scores(scores, counts, weights) if scores else None,
        "speed": _speed(speed, speed_row, known_as) if speed else None,
        "parity": parity,
        "files": sorted(
            {path.name for path in Path(exported).iterdir() if path.is_file()} | {CARD, DATA}
        ),
        "weights": weights,
        "versions": {
            name: version for name, version in package_versions().items() if name in PACKAGES
        },
        "commit": commit(),
    }
    card["papers"] = [
        dict(zip(("what", "who", "address"), PAPERS[key], strict=True)) for key in _papers(card)
    ]
    return card


def _averaged(folder):
    if not (folder / "manifest.json").is_file():
        return None
    number = read_manifest(folder).get("counts", {}).get("checkpoints", 1)
    return number if number > 1 else None


def _papers(card):
    """Keys of ``PAPERS`` that the card's model calls for."""
    steps = card["training"]
    called = {step["loss"] for step in steps}
    called |= {(step["adapt"] or "").partition("=")[0] for step in steps}
    called |= {"distilled" for step in steps if step["teacher"]}
    called |= {"from_teacher" for step in steps if step["from_teacher"]}
    if steps and steps[-1]["teacher"] and steps[-1]["adapt"]:
        called.add("dad")
    called |= {"average"} if card["averaged_checkpoints"] else set()
    called |= {"shortlist"} if card["shortlist"] else set()
    called |= {"fairseq", "ctranslate2", "sacrebleu", card["vocabulary"]["kind"]}
    return [key for key in PAPERS if key in called]


def _text(folder):
    """What the ledger of a text folder says."""
    folder = Path(folder)
    if not (folder / "ledger.json").is_file():
        raise FileNotFoundError(
            f"{folder / 'ledger.json'} is missing: --text is a folder that data_prep.clean wrote"
        )
    ledger = read_json(folder / "ledger.json")
    # corpora/medical/text is called medical
    name = folder.parent.name if folder.name in ("text", "sources") else folder.name
    steps = ledger.get("steps", [])
    return {
        "name": name or str(folder),
        "read": ledger.get("read"),
        "kept": ledger.get("kept"),
        "repaired": ledger.get("repaired"),
        "dropped": {
            step["step"]: step["dropped"] for step in steps if step.get("dropped")
        },
        "steps": [step["step"] for step in steps],
    }  # fmt: skip


def _licences_of(folder, depth=3):
    """The ``licences.tsv`` of the raw folders that a text folder was made of."""
    if not depth or not (folder / "manifest.json").is_file():
        return []
    found = []
    for name in read_manifest(folder).get("inputs", {}):
        raw = Path(name).parent
        # not the dev and test sets of other domains that it was kept apart from
        if Path(name).name.startswith("train") and raw not in found:
            found.append(raw)
    return [
        path
        for raw in found
        for path in (
            [raw / LICENCES] if (raw / LICENCES).is_file() else _licences_of(raw, depth - 1)
        )
    ]


def _licences(paths):
    """(rows of licence files, each set once; BibTeX beside them)."""
    rows, references = {}, []
    for path in dict.fromkeys(map(str, paths)):
        lines = list(read_lines(path))
        if not lines or tuple(lines[0].split("\t")) != LICENCE_COLUMNS:
            raise ValueError(
                f"{path}, line 1: a licence file begins with the columns "
                f"{', '.join(LICENCE_COLUMNS)}, with tabs between; data_prep.fetch writes it"
            )
        for number, line in enumerate(lines[1:], start=2):
            cells = line.split("\t")
            if len(cells) != len(LICENCE_COLUMNS):
                raise ValueError(
                    f"{path}, line {number}: {len(cells)} columns, not {len(LICENCE_COLUMNS)}"
                )
            row = dict(zip(LICENCE_COLUMNS, cells, strict=True))
            rows[row["id"], row["role"]] = row
        bib = Path(path).with_name(REFERENCES)
        if bib.is_file():
            references.append("\n".join(read_lines(bib)).strip())
    return list(rows.values()), "\n\n".join(dict.fromkeys(filter(None, references)))


def _scores(place, counts, weights):
    """What the card says of ``scores.json``, once it is known to be of this model."""
    path = Path(place) / SCORES if Path(place).is_dir() else Path(place)
    record = read_json(path)
    if not isinstance(record, dict) or not isinstance(record.get("test_sets"), dict):
        raise ValueError(f"{path} has no test_sets: it is not what dad-evaluate writes")
    decoded = _decoded_with(path.parent)
    if decoded and not decoded & set(weights.values()):
        raise ValueError(
            f"{path} holds scores of other weights ({record.get('model')}) than those that are "
            f"exported; take the scores (dad-evaluate) of this model, exported with the same "
            f"--compute-type"
        )
    theirs = record.get("counts", {})
    for key in ("parameters", "embedding_parameters"):
        if theirs.get(key) != counts[key]:
            raise ValueError(
                f"{path} holds scores of another model: {record.get('model')} has "
                f"{theirs.get(key)} {key.replace('_', ' ')}, this one {counts[key]}"
            )
    test_sets = {
        name: {
            "lines": entry.get("lines"),
            **{search: {metric: _number(entry[search][metric]) for metric in entry[search]}
               for search in ("beam", "greedy") if isinstance(entry.get(search), dict)},
        }
        for name, entry in record["test_sets"].items()
    }  # fmt: skip
    return {"beam_size": record.get("beam"), "test_sets": test_sets}


def _number(entry):
    return {key: entry[key] for key in ("score", "interval", "signature")}


def _decoded_with(folder):
    """SHA-256 of all inputs of the translations in a folder of ``dad-evaluate``."""
    return {
        digest
        for path in folder.glob("*.manifest.json")
        for name, digest in read_json(path).get("inputs", {}).items()
        if Path(name).name in ("model.pt", "model.bin")
    }


def _speed(path, row, known_as):
    """The row of this model in ``speed.json``, with the machine that it was measured on."""
    record = read_json(path)
    models = record.get("models")
    if not isinstance(models, dict):
        raise ValueError(f"{path} has no models: it is not what dad-speed writes now; measure anew")
    found = [row] if row else [name for name in models if _same_model(name, known_as)]
    if len(found) != 1 or found[0] not in models:
        problem = "has several rows that may be" if len(found) > 1 else "has no row of"
        raise ValueError(
            f"{path} {problem} {row or known_as[0]}; name one of them with --speed-row: "
            f"{', '.join(models)}"
        )
    machine = ("device", "processor", "cores", "workers", "threads_per_worker", "sentences")
    told = {key: record.get(key) for key in machine}
    # in a row "beam" is how fast a search with a beam was
    return {**told, "beam_size": record.get("beam"), **models[found[0]]}


def _same_model(name, known_as):
    """Whether a path may be another way to write one of ``known_as``, or its exported folder."""
    parts = [part for part in Path(name).parts if part != "exported"]
    places = [Path(place).absolute() for place in known_as]
    return Path(name).absolute() in places or any(
        place.parts[-len(parts) :] == tuple(parts) for place in places
    )


# -- writing ---------------------------------------------------------------------------------


def write_card(folder, card):
    """Write ``README.md`` and ``card.json`` into an exported folder."""
    write_json(folder / DATA, card)
    text = render(card, EXAMPLES.get(card["source_lang"], "..."))
    (folder / CARD).write_text(text, encoding="utf-8", newline="\n")


def render(card, example="..."):
    """The card as Markdown with front matter.

    Whatever comes from files or flags is escaped, so that it cannot end a table or begin a link.

    Args:
        card: of :func:`collect`.
        example: a sentence of the source language for the snippet.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, finalize=escape,
    )  # fmt: skip
    environment.filters |= {
        "code": code, "cell": cell, "link": link, "block": block, "number": number, "score": score,
        "repr": lambda text: Markdown(repr(text)),
    }  # fmt: skip
    return environment.get_template(TEMPLATE).render(
        card, example=example, front_matter=Markdown(front_matter(card)),
        signatures=_signatures(card), speed_rows=_speed_rows(card["speed"] or {}),
        file_words=[(name, _purpose(name)) for name in card["files"]],
        licence_rows=_licence_rows(card["data_licences"]),
        languages=[language_name(card[side]) for side in ("source_lang", "target_lang")],
        metric_words={"bleu": "BLEU", "chrf": "chrF", "ter": "TER"},
    )  # fmt: skip


def language_name(lang):
    """English name of a language code, or the code."""
    import_mtdata()
    from mtdata.iso import iso639_3
    from mtdata.iso.bcp47 import bcp47

    tag = bcp47.try_parse(lang, default=None)
    return (iso639_3.code_to_name(tag.lang) if tag else None) or lang


def front_matter(card):
    """YAML that the Hugging Face hub reads, without its two lines of dashes."""
    import yaml

    licence = card["licence"]
    record = {
        "language": [card["source_lang"], card["target_lang"]],
        # the hub's word for a licence that nobody stated
        "license": licence.lower() if licence else "unknown",
        "library_name": "ctranslate2",
        "pipeline_tag": "translation",
        "tags": ["translation", "ctranslate2", "fairseq", "knowledge-distillation",
                 *([card["domain"]] if card["domain"] else [])],
    }  # fmt: skip
    if card["data_licences"]:
        record["datasets"] = list(dict.fromkeys(row["id"] for row in card["data_licences"]))
    if card["scores"]:
        metrics = [
            (test_set, metric, entry["score"])
            for test_set, found in card["scores"]["test_sets"].items()
            for metric, entry in found.get("beam", {}).items()
        ]
        record["metrics"] = list(dict.fromkeys(metric for _, metric, _ in metrics))
        record["model-index"] = [
            {
                "name": card["name"],
                "results": [
                    {
                        "task": {"type": "translation"},
                        "dataset": {"type": test_set, "name": f"{test_set}, test set"},
                        "metrics": [
                            {"type": metric, "value": value}
                            for other, metric, value in metrics
                            if other == test_set
                        ],
                    }
                    for test_set in card["scores"]["test_sets"]
                ],
            }
        ]
    return yaml.safe_dump(record, sort_keys=False, allow_unicode=True, width=1000).rstrip("\n")


class Markdown(str):
    """Text that is Markdown already, and is not escaped."""


def escape(value):
    """A value as Markdown that shows its characters, on one line."""
    if isinstance(value, Markdown):
        return value
    text = re.sub(r"([\\`*_\[\]<>|~#$]|&(?=[#\w]+;))", r"\\\1", one_line(str(value)))
    # what would begin a list, or make a heading of the line above
    return Markdown(re.sub(r"^(?:(?=[-+=])|(\d+)(?=[.)](?: |$)))", r"\1\\", text))


def code(text):
    """Text as a span of code."""
    text = one_line(str(text))
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return Markdown(f"{fence}{space}{text}{space}{fence}")


def cell(text):
    """The same in a table, where a bar would end the cell even in code."""
    return Markdown(code(text).replace("|", "\\|"))


def block(text, language=""):
    """Text as a block of code."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return Markdown(f"{fence}{language}\n{text}\n{fence}")


def link(address):
    """An address as a link where it is one of the web, else as code."""
    if re.fullmatch(r"https?://[^\s<>`\"\\|]+", address):
        return Markdown(f"<{address}>")
    return code(address)


def number(value, digits=0):
    """A number with thousands separated, or "not known"."""
    return "not known" if value is None else f"{value:,.{digits}f}"


def score(entry):
    """A score with half of its 95 % interval."""
    return f"{entry['score']:.1f} ± {entry['interval']:.1f}" if entry else ""


def _signatures(card):
    """[(metric, signature)] of all scores in the card, each once."""
    found = []
    if card["scores"]:
        for entry in card["scores"]["test_sets"].values():
            for search in ("beam", "greedy"):
                found += [(metric, of["signature"]) for metric, of in entry.get(search, {}).items()]
    if card["parity"]:
        found += [(m, of["signature"]) for m, of in card["parity"]["beam"]["exported"].items()]
    return sorted(set(found))


def _licence_rows(sets):
    """Rows of the table: what a set was used for stands in one of them."""
    rows = {}
    for entry in sets:
        key = tuple(entry[column] for column in ("id", "licence", "citation", "address"))
        rows.setdefault(key, {**entry, "uses": []})["uses"].append(
            f"{entry['role']} ({entry['lines']})"
        )
    return list(rows.values())


def _speed_rows(speed):
    """Rows of the table: what, with a beam, greedy; those for which there are numbers."""
    rows = []
    for what, path, digits in (
        ("sentences/s, in batches", ("sentences_per_second",), 0),
        ("tokens/s, in batches", ("tokens_per_second",), 0),
        ("sentences/s, one by one", ("one_by_one", "sentences_per_second"), 0),
        ("ms for a sentence, half of them", ("one_by_one", "sentence_ms", "p50"), 1),
        ("ms for a sentence, 99 of 100", ("one_by_one", "sentence_ms", "p99"), 1),
    ):
        found = {search: _inside(speed.get(search), path) for search in ("beam", "greedy")}
        if any(value is not None for value in found.values()):
            cells = {
                key: number(value, digits) if value is not None else ""
                for key, value in found.items()
            }
            rows.append({"what": what, **cells})
    for what, key, unit in (
        ("memory at most", "peak_memory_bytes", 1e6), ("loading", "load_seconds", 1e-3),
    ):  # fmt: skip
        if speed.get(key) is not None:
            value = f"{number(speed[key] / unit)} {'MB' if unit > 1 else 'ms'}"
            rows.append({"what": what, "beam": value, "greedy": ""})
    return rows


def _inside(value, path):
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _purpose(name):
    """What a file of the folder is for, in words."""
    for pattern, words in PURPOSES.items():
        if re.fullmatch(pattern, name):
            return words
    return "vocabulary"


PURPOSES = {
    r"model\.bin": "the weights, in CTranslate2's format",
    r"config\.json": "CTranslate2's settings of the model",
    r".*_vocabulary\.json": "the pieces, as CTranslate2 numbers them",
    r"vmap\.txt": "shortlist: which target pieces may translate a source piece",
    r"model\.safetensors": "the weights before the conversion, as fairseq names them",
    r"subwords\.model": "SentencePiece model: how text is cut into pieces",
    r"bpe\.codes": "codes of subword-nmt: how text is cut into pieces",
    r"dict\..*": "the pieces, as fairseq numbers them",
    r"vocabulary\.json": "languages, and SHA-256 of the files of the vocabulary",
    r"manifest\.json": "what made the folder",
    r"card\.json": "this page as data",
    r"README\.md": "this page",
}

EXAMPLES = {
    "de": "Guten Morgen.", "en": "Good morning.", "es": "Buenos días.", "fr": "Bonjour.",
    "ru": "Доброе утро.", "zh": "早上好。",
}  # fmt: skip


