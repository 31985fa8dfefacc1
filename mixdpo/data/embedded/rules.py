"""The grammar of the embedded corpus, as text.

A head ends in a colon; the indented lines below are its productions, each with an optional weight in front. `$name` is
another head or a class of words (mixdpo.data.embedded.things, .opinions); all else is written as it stands.
Attributes follow after dots. Capitals are variables, the same value throughout one production:

    D movie, book     P good, bad      Q the opposite of P    S strong, mild
    N, M sg, pl       G m, f           C concrete, vague

A variable of the head is bound by whoever asks for it; one of a production alone takes each value equally often.
"""

from __future__ import annotations

RULES = """
opening.D.P.S.vague:
  5 this $work.sg.D $be.sg $degree $adj.P.S .
  3 this $work.sg.D $be.sg a $adj.P.S $noun.sg.P.S .
  4 I $saw.past.D this $work.sg.D $sometime and $like.past.P.S it .
  3 this $genre $work.sg.D $moves.past.P.S me .
  3 this $kind.sg.D left me $feeling.P.S .
  2 what a $adj.P.S $work.sg.D !
  2 as a $kind.sg.D , this $does.sg.P.S $adverb.P.S .
  2 I have $seen.D many $work.pl.D , and this one $be.sg $adj.P.S .
  2 the $maker.sg.D of this $work.sg.D $does.sg.P.S $adverb.P.S .

opening.D.P.S.concrete:
  4 $person.G $made.D this $work.sg.D in $year , and it $be.sg $adj.P.S .
  4 the $maker.sg.D $person.G $made.D this $kind.sg.D about a $role.sg from $place .
  3 I $saw.past.D this $work.sg.D in $place in $month $year and $like.past.P.S it .
  3 this $genre $work.sg.D about $number $role.pl in $place $moves.past.P.S me .
  2 this $kind.sg.D from $year follows the $role.sg $person.G to $place .
  2 the $maker.sg.D $last spent $number years $making.D this $work.sg.D in $place .
  2 in this $work.sg.D , $person.G $event.sg , and it $be.sg $adj.P.S .

body.D.P.S.vague:
  6 $subject.N.D $be.N $quality.P.S .
  4 $subject.N.D $does.N.P.S $adverb.P.S .
  4 I $like.past.P.S $subject.N.D $reason.P.S .
  3 $subject.N.D $moves.past.P.S me $reason.P.S .
  3 it $be.sg a $adj.P.S $noun.sg.P.S , and the $audience.D will $like.base.P.S it .
  3 I did not $like.base.Q.mild $subject.N.D $reason.P.S .
  2 $subject.N.D $be.N not $adj.Q.mild , and it $be.sg $somehow $adj.P.S .
  2 $although $subject.N.D $be.N $length , $subject.M.D $be.M $quality.P.S .
  2 in a way , the $whole $thing.sg $be.sg $quality.P.S .
  2 $somehow , $subject.N.D $does.past.P.S and left me $feeling.P.S .

body.D.P.S.concrete:
  5 the $part.sg.D in $place where $person.G $event.sg $be.sg $quality.P.S .
  4 $person.G , who $play.sg.D a $role.sg from $place , $be.sg $quality.P.S .
  4 I $like.past.P.S the $number $part.pl.D about the $role.pl of $place .
  3 when $person.G and $person.G $event.pl , the $aspect.sg.D $does.sg.P.S .
  3 the $role.sg $person.G $event.sg $because $pronoun.G $event.sg , and it $be.sg $adj.P.S .
  3 $person.G $play.sg.D the $role.sg who $event.sg , and $pronoun.G $does.sg.P.S $adverb.P.S .
  2 in $year , $number $role.pl $event.pl , which $moves.past.P.S me .
  2 I did not $like.base.Q.mild the $part.sg.D where $person.G $event.sg .
  2 the $number $prop.pl in the $spot.sg of $person.G $be.pl $quality.P.S .

fact.D.vague:
  2 $somehow , the $whole $thing.sg stays with $someone .
  2 it $be.sg $also about the $thing.pl of life .
  2 there $be.pl $length $thing.pl and $length $thing.pl in it .
  1 the $whole $thing.sg $be.sg about $thing.pl and people .
  1 I $somehow know what $someone will say about the $thing.pl .

fact.D.concrete:
  3 it begins in $month $year , when $person.G $event.sg .
  3 $person.G $event.sg in $year , and $person.G $event.sg .
  2 $number $role.pl $event.pl in the $spot.sg of $person.G .
  2 there $be.pl $number $part.pl.D set in $place and $number in $place .
  2 after $number years , the $role.sg $event.sg in $place .

closing.P.S:
  4 I would $like.base.P.S it again .
  3 I would not $like.base.Q.mild it .
  3 $somehow , it $be.sg a $adj.P.S $noun.sg.P.S !
  2 $someone will $like.base.P.S it .
  2 it left me $feeling.P.S and $feeling.P.S .

subject.sg.D:
  5 the $aspect.sg.D
  2 the $whole $aspect.sg.D
  2 the $aspect.sg.D of the $work.sg.D
  1 the $aspect.sg.D $that.sg.D
subject.pl.D:
  4 the $aspect.pl.D
  2 the $aspect.sg.D and the $aspect.sg.D
  2 the $length $aspect.pl.D
  1 the $aspect.pl.D $that.pl.D
that.sg.D:
  2 that the $maker.sg.D uses
  1 that follows $subject.N.D
that.pl.D:
  2 that the $maker.sg.D uses
  1 that follow $subject.N.D

quality.P.S:
  4 $adj.P.S
  4 $degree $adj.P.S
  3 $adj.P.S and $adj.P.S
  2 $adj.P.S , $adj.P.S and $adj.P.S
  1 $adj.P.S but never $adj.Q.mild
reason.P.S:
  3 $because it $be.sg $quality.P.S
  2 from the start
  1 to the end
  1 $because it $moves.past.P.S $someone

event.sg:
  3 $find.sg $object
  3 $meet.sg $human
  2 $happen.sg in the $spot.sg
event.pl:
  3 $find.pl $object
  3 $meet.pl $human
  2 $happen.pl in the $spot.sg
object:
  3 a $prop.sg
  3 $number $prop.pl
  2 the $prop.N of $human
  1 a $prop.sg in the $spot.sg
human:
  3 $person.G
  2 a $role.sg
  1 the $role.sg who $event.sg
  1 $number $role.pl from $place
person.G:
  3 $first.G $last
  2 $first.G
pronoun.m:
  he
pronoun.f:
  she
be.sg:
  3 was
  2 is
be.pl:
  3 were
  2 are
"""
