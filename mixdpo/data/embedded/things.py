"""Words without opinion: people, places, times, objects, works and their parts, connectives.

Keys are symbols of the grammar (mixdpo.data.embedded.rules). The classes in CONCRETE are the concrete detail of a text.
"""

from __future__ import annotations

from mixdpo.data.embedded.forms import nouns, verbs, words

PEOPLE: dict[str, tuple[str, ...]] = {
    "first.m": words(
        """Aaron Adrian Albert Anton Arthur Benjamin Bernard Boris Carlos Cedric Conrad Daniel David Dmitri Edgar
        Edmund Elias Emil Ernest Felix Frederick Gabriel George Gregor Gustav Hector Henry Hugo Igor Isaac Ivan
        Jacob James Jerome Joseph Julian Karl Kenji Lars Leon Louis Lucas Magnus Marcus Martin Mateo Nathan Nikolai
        Omar Oscar Oliver Pablo Patrick Paul Peter Rafael Ralph Ricardo Robert Samuel Sebastian Simon Stefan
        Theodore Thomas Tobias Victor Vincent Walter William Yusuf"""
    ),
    "first.f": words(
        """Abigail Agnes Alice Amelia Anna Astrid Beatrice Bianca Camille Carmen Caroline Catherine Cecilia Clara
        Daphne Diana Dorothy Edith Elena Eleanor Elizabeth Emma Esther Eva Fatima Flora Frances Greta Hannah Harriet
        Helen Ingrid Irene Isabel Jane Josephine Julia Karen Katya Laura Leila Lena Lucia Margaret Maria Martha
        Matilda Miriam Monica Nadia Naomi Natalie Nora Olga Ophelia Paula Petra Priya Rachel Rebecca Rosa Ruth
        Sandra Sarah Sofia Stella Susan Sylvia Teresa Ursula Valerie Vera Yuki"""
    ),
    "last": words(
        """Abbott Adler Alvarez Anderson Baker Barnes Becker Bennett Berger Bishop Blackwood Bowman Brandt Brennan
        Burke Calloway Campbell Castillo Chandler Clarke Coleman Cooper Crawford Dalton Davies Delgado Dixon Donovan
        Doyle Drummond Duncan Edwards Eriksson Fairbanks Falk Ferrari Fischer Fletcher Foster Fujimoto Gallagher
        Garcia Gibson Goldberg Graham Griffin Hamilton Hansen Hargrove Harper Hartmann Hayes Hoffman Holloway Howard
        Hughes Ibsen Ivanov Jackson Jensen Johansson Jordan Kaufman Keller Kennedy Kowalski Kramer Lambert Larsen
        Lawson Lindgren Lombardi Lopez Maddox Marchetti Marlowe Mitchell Montgomery Moreau Morgan Murphy Nakamura
        Nielsen Novak Okafor Olsen Ortega Osborne Palmer Parker Peterson Petrov Quinn Ramirez Reynolds Richter
        Romero Rossi Russell Sanders Schneider Sinclair Spencer Sullivan Tanaka Thornton Turner Vargas Vaughn Wagner
        Walsh Watanabe Webster Whitaker Winslow Yamada Zimmermann"""
    ),
    **nouns(
        "role",
        """sailor teacher detective nurse farmer soldier painter widow priest lawyer baker thief:thieves spy banker
        tailor surgeon gardener blacksmith violinist librarian journalist pilot architect fisherman:fishermen
        policeman:policemen waitress orphan smuggler clerk chemist captain countess shepherd boxer mechanic midwife
        gambler watchmaker translator photographer""",
    ),
}

CIRCUMSTANCES: dict[str, tuple[str, ...]] = {
    "place": words(
        """Amsterdam Athens Barcelona Berlin Bombay Boston Brussels Budapest Cairo Chicago Copenhagen Dakar Dublin
        Edinburgh Florence Geneva Glasgow Hamburg Havana Helsinki Istanbul Jerusalem Kyoto Lagos Lima Lisbon London
        Madrid Manila Marseille Melbourne Mexico Milan Montreal Moscow Munich Nairobi Naples Osaka Oslo Paris
        Philadelphia Prague Rome Rotterdam Salzburg Santiago Seattle Shanghai Stockholm Sydney Tangier Tokyo Toronto
        Tunis Venice Vienna Warsaw Zurich"""
    ),
    "year": tuple(str(year) for year in range(1948, 2021)),
    "month": words("January February April June July August September October November December"),
    "number": words(
        """three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
        eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"""
    ),
    **nouns(
        "prop",
        """letter suitcase violin lantern revolver photograph candle mirror necklace piano diary map umbrella
        telegram painting bicycle knife:knives compass coin ticket blanket telescope key bottle basket drum statue
        wagon ladder trumpet notebook microphone typewriter accordion anchor orchid sword crown rifle helmet""",
    ),
    **nouns(
        "spot",
        """attic harbour lighthouse railway kitchen cellar bakery monastery barn hospital courtroom greenhouse
        cemetery warehouse museum casino tavern stable bridge castle observatory vineyard chapel prison laundry
        staircase balcony ballroom quarry swamp""",
    ),
}

WORKS: dict[str, tuple[str, ...]] = {
    **nouns("work.movie", "film movie picture feature production"),
    **nouns("work.book", "novel book story volume paperback"),
    **nouns("kind.movie", "thriller comedy western documentary drama remake sequel"),
    **nouns("kind.book", "memoir biography mystery saga romance fable trilogy"),
    "genre": words(
        """romantic historical political gothic criminal comic tragic musical religious urban rural epic maritime
        psychological"""
    ),
    **nouns("maker.movie", "director filmmaker producer screenwriter"),
    **nouns("maker.book", "author writer novelist storyteller"),
    **nouns(
        "aspect.movie",
        """camera soundtrack screenplay cast performance costume stunt dialogue ending plot set score villain actor
        actress finale montage trailer""",
    ),
    **nouns(
        "aspect.book",
        """verse chapter narrator sentence paragraph dialogue ending plot character hero:heroes heroine epilogue
        prologue metaphor theme translation voice title cover argument""",
    ),
    **nouns("part.movie", "scene shot sequence episode"),
    **nouns("part.book", "chapter page passage scene"),
    "audience.movie": words("viewers audiences spectators moviegoers"),
    "audience.book": words("readers booklovers bookworms students"),
    **verbs("saw.movie", "watch see:saw rent stream"),
    **verbs("saw.book", "read:read finish borrow reread:reread"),
    "seen.movie": words("seen watched rented streamed"),
    "seen.book": words("read finished borrowed reread"),
    "made.movie": words("directed filmed produced shot"),
    "made.book": words("wrote published penned composed"),
    "making.movie": words("directing filming producing shooting"),
    "making.book": words("writing publishing penning composing"),
    **verbs("play.movie", "play portray embody:embodied"),
    **verbs("play.book", "narrate describe introduce"),
}

HAPPENINGS: dict[str, tuple[str, ...]] = {
    **verbs("find", "find:found hide:hid steal:stole buy:bought lose:lost carry:carried repair discover sell:sold"),
    **verbs("meet", "meet:met follow rescue betray forgive:forgave marry:married challenge warn visit hire"),
    **verbs("happen", "travel return escape work sleep:slept wait sing:sang dance live"),
}

VAGUE: dict[str, tuple[str, ...]] = {
    **nouns("thing", "thing part idea moment bit side mood tone feeling message"),
    "whole": words("whole overall general basic entire usual"),
    "sometime": words("recently yesterday lately again once twice"),
    "somehow": words("somehow mostly generally basically certainly clearly probably perhaps honestly"),
    "someone": words("everyone everybody someone somebody anyone anybody"),
    "degree": words("very quite really rather truly simply so fairly utterly completely deeply thoroughly"),
    "because": words("because since as"),
    "although": words("although though while"),
    "also": words("also even still often always sometimes"),
    "length": words("long short slow quick little big small old new modern"),
}

THINGS = PEOPLE | CIRCUMSTANCES | WORKS | HAPPENINGS | VAGUE
CONCRETE = ("first", "last", "role", "place", "year", "month", "number", "prop", "spot")
