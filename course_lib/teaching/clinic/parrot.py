"""A model whose speech shows the health of its cache: it repeats its last eight words, for ever.

    ann likes red tea and bob likes milk  ->  ann likes red tea and bob likes milk ann likes red ...

One layer, one idea: a query at position p matches the key at position p - 7 and no other, so the next word is the one
that stood eight places before it. The weights are written down, not trained, and the model runs through the very
engine of the course. Whatever is wrong with keys and values can be heard: a block too few, and it stammers; somebody
else's block, and it speaks somebody else's words.

One word is special. Where eight places before there is a `?`, any dish may come next: that is where samples differ.

Source: a fixed-offset copying head, as in Elhage et al., "A Mathematical Framework for Transformer Circuits" (2021).
"""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from course_lib.serving.linear import lay_out
from course_lib.serving.model import LlamaConfig, LlamaLayer, LlamaModel, rope_inverse_frequency

PERIOD = 8  # words
DISHES = "soup rice fish cake eggs beans bread pasta salad curry".split()
PEOPLE = "ann bob cid dot eve fay gus hal ivy joe kim leo".split()
WORDS = [
    *"? . , : and or the a my your our is are was will likes wants has sees says asks keeps needs knows".split(),
    *"red blue green white black old new big small cold warm early late today tonight always never here there".split(),
    *"tea milk water wine key door book house garden river table chair lamp song letter secret code word name".split(),
    *"one two three four five six seven eight nine ten not for with in on at to from of by you me i we they".split(),
    *"please answer in one sentence only a helpful assistant be kind short chapter page begin end copy read".split(),
    *PEOPLE,
    *DISHES,
]
VOCABULARY = list(dict.fromkeys(WORDS))

HEAD_DIM, NUM_KV_HEADS, GROUP = 48, 4, 2
HIDDEN = 256  # a number for each word, and one that is always 1
SHARP = 40.0  # how much more a query likes its own key than the next best, before softmax
COPIED = 10.0  # how loud the copied word is beside the present one
CERTAIN = 4.0  # logits for each unit of it


def config() -> LlamaConfig:
    """Its numbers, as a config.json would give them."""
    return LlamaConfig(
        num_layers=1,
        hidden_size=HIDDEN,
        intermediate_size=16,
        num_query_heads=GROUP * NUM_KV_HEADS,
        num_kv_heads=NUM_KV_HEADS,
        head_dim=HEAD_DIM,
        vocab_size=len(VOCABULARY),
        max_position=1024,
        rms_norm_eps=1e-6,
        rope_theta=100.0,
    )


def parrot() -> tuple[LlamaModel, Tokenizer]:
    """(model, tokenizer). No weights are fetched.

    Example:
        >>> from course_lib.serving import LLMEngine, SamplingParams
        >>> engine = LLMEngine(*parrot(), kv_cache_bytes=2**20, max_model_len=256)
        >>> said = engine.generate(["ann likes red tea and bob likes milk"], SamplingParams(max_tokens=10))
        >>> said[0].outputs[0].text
        'ann likes red tea and bob likes milk ann likes'
    """
    shape = config()
    num_words, always = len(VOCABULARY), len(VOCABULARY)
    embedding = torch.zeros(num_words, HIDDEN)
    embedding[:, :num_words] = torch.eye(num_words)
    embedding[:, always] = 1.0

    # Keys point along the first half of each pair; queries are turned back by seven places. RoPE does the rest.
    angle = (PERIOD - 1) * rope_inverse_frequency(shape)  # [D / 2]
    query = torch.cat([angle.cos(), -angle.sin()])
    key = torch.cat([torch.ones(HEAD_DIM // 2), torch.zeros(HEAD_DIM // 2)])
    loudness = (HIDDEN / 2) ** 0.5  # what normalisation makes of a 1 in the embedding
    qkv = torch.zeros((GROUP + 2) * NUM_KV_HEADS, HEAD_DIM, HIDDEN)
    qkv[: GROUP * NUM_KV_HEADS, :, always] = SHARP / loudness * query
    qkv[GROUP * NUM_KV_HEADS : (GROUP + 1) * NUM_KV_HEADS, :, always] = HEAD_DIM**0.5 / loudness * key / 24
    words = torch.eye(NUM_KV_HEADS * HEAD_DIM, HIDDEN).unflatten(0, (NUM_KV_HEADS, HEAD_DIM))
    qkv[(GROUP + 1) * NUM_KV_HEADS :] = words / loudness  # each KV head carries its 48 words
    out = torch.zeros(HIDDEN, GROUP * NUM_KV_HEADS, HEAD_DIM)
    out[:, ::GROUP] = COPIED * words.permute(2, 0, 1)  # one query head of each group is heard

    head = CERTAIN * torch.eye(num_words, HIDDEN)
    question = VOCABULARY.index("?")
    head[question, question] = 0.0
    head[[VOCABULARY.index(dish) for dish in DISHES], question] = CERTAIN

    silent = torch.zeros(shape.intermediate_size, HIDDEN)
    layer = LlamaLayer(
        attention_norm=torch.ones(HIDDEN),
        qkv=lay_out(qkv.flatten(0, 1), packs=False),
        attention_out=lay_out(out.flatten(1), packs=False),
        mlp_norm=torch.ones(HIDDEN),
        gate_up=lay_out(torch.cat([silent, silent]), packs=False),
        down=lay_out(silent.t().contiguous(), packs=False),
    )
    model = LlamaModel(shape, embedding, [layer], torch.ones(HIDDEN), lay_out(head, packs=False))
    return model, tokenizer()


def tokenizer() -> Tokenizer:
    """One word, one token."""
    made = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(VOCABULARY)}, unk_token=".")
    )
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return made


def healthy_speech(prompt: str, num_words: int) -> str:
    """What it must say, worked out without a model. Prompts with a `?` in their last eight words are drawn anew.

    Example:
        >>> healthy_speech("ann likes red tea and bob likes milk", 3)
        'ann likes red'
    """
    last = prompt.split()[-PERIOD:]
    return " ".join(last[n % PERIOD] for n in range(num_words))


def first_slip(prompt: str, told: str) -> int | None:
    """The number of the first word, from 0, that a healthy parrot would not have said; None if there is none.

    Each word repeats the one eight before it; where that is a `?`, it is any dish.

    Example:
        >>> first_slip("ann asks for ? and bob likes tea", "ann asks for rice and bob likes tea ann asks for soup")
        11
    """
    words = prompt.split()
    first = len(words)
    words += told.split()
    for place in range(first, len(words)):
        model = words[place - PERIOD]
        if words[place] != model and not (model == "?" and words[place] in DISHES):
            return place - first
    return None
