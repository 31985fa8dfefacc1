"""Words of praise and blame, with their strength. Each word has one polarity, so that the oracle can read it back."""

from __future__ import annotations

from mixdpo.data.embedded.forms import nouns, verbs, words

STRENGTH = {"strong": 2.0, "mild": 1.0}

OPINIONS: dict[str, tuple[str, ...]] = {
    # adjectives: the plot was …
    "adj.good.strong": words(
        """superb brilliant wonderful magnificent outstanding stunning dazzling masterful flawless perfect
        extraordinary unforgettable breathtaking glorious spectacular phenomenal exquisite marvellous sublime
        triumphant splendid enthralling astonishing electrifying luminous riveting exceptional"""
    ),
    "adj.good.mild": words(
        """good nice pleasant enjoyable solid charming decent likeable amusing clever warm fresh tender engaging
        lively graceful thoughtful touching witty entertaining satisfying elegant convincing candid memorable sharp
        crisp gentle inventive sincere delightful believable"""
    ),
    "adj.bad.strong": words(
        """terrible awful horrible dreadful atrocious abysmal disastrous unbearable appalling pathetic worthless
        excruciating hideous unwatchable insufferable laughable wretched miserable catastrophic ghastly revolting
        lousy horrendous painful idiotic inexcusable"""
    ),
    "adj.bad.mild": words(
        """bad dull weak boring flat clumsy bland tedious shallow predictable tiresome forgettable uneven messy
        stale lifeless thin muddled awkward sloppy pointless dreary lazy hollow confusing mediocre wooden tired
        contrived stiff tepid implausible"""
    ),
    # nouns: it was a …
    **nouns("noun.good.strong", "masterpiece triumph gem treasure marvel wonder"),
    **nouns("noun.good.mild", "pleasure success surprise charmer winner comfort"),
    **nouns("noun.bad.strong", "disaster catastrophe fiasco abomination travesty nightmare insult"),
    **nouns("noun.bad.mild", "disappointment failure letdown chore mess mistake bore"),
    # what parts of a work do: the ending …
    **verbs("does.good.strong", "shine:shone soar dazzle triumph sparkle excel:excelled"),
    **verbs("does.good.mild", "succeed please charm flow convince entertain"),
    **verbs("does.bad.strong", "collapse stink:stank implode infuriate annoy disgust"),
    **verbs("does.bad.mild", "drag:dragged fail stumble sag:sagged ramble disappoint"),
    # what it does to one: it … me
    **verbs("moves.good.strong", "enchant captivate thrill astonish mesmerise exhilarate"),
    **verbs("moves.good.mild", "amuse comfort touch interest impress delight"),
    **verbs("moves.bad.strong", "appal:appalled horrify:horrified repel:repelled sicken insult enrage"),
    **verbs("moves.bad.mild", "bore tire irritate confuse disappoint frustrate"),
    # what one does: I … it
    **verbs("like.good.strong", "love adore treasure cherish worship"),
    **verbs("like.good.mild", "like enjoy admire appreciate recommend praise"),
    **verbs("like.bad.strong", "hate despise detest loathe abhor:abhorred"),
    **verbs("like.bad.mild", "dislike regret:regretted avoid endure resent criticise"),
    # how one is left: it left me …
    "feeling.good.strong": words("enchanted speechless ecstatic overjoyed spellbound elated"),
    "feeling.good.mild": words("happy pleased cheerful smiling hopeful content"),
    "feeling.bad.strong": words("furious disgusted outraged devastated exasperated"),
    "feeling.bad.mild": words("cold bored sleepy unhappy puzzled restless weary"),
    # adverbs: it does so …
    "adverb.good.strong": words("brilliantly superbly wonderfully beautifully perfectly magnificently"),
    "adverb.good.mild": words("nicely well smoothly gracefully cleverly warmly"),
    "adverb.bad.strong": words("terribly horribly dreadfully awfully atrociously abysmally"),
    "adverb.bad.mild": words("badly poorly clumsily weakly awkwardly lazily"),
}

NEGATORS = ("not", "never", "hardly")
