"""What the AntM2C view writes about items and users: plain English words of a few topics.

A category of the world is a topic, so whoever reads the words knows the category, in whichever
scenario an item is, and however rarely it was shown. An item's title begins with a word for its
quality. The words are ordinary ones, so that an encoder that knows English knows which topics are
near each other in meaning; the world's categories are not, they are drawn at random.
"""

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctr_keras.datasets.simulator.world import World

TOPICS = (
    "coffee espresso latte cappuccino beans roast barista mocha",
    "tea matcha oolong jasmine brew leaves kettle chai",
    "pizza pasta lasagna ravioli mozzarella basil risotto tiramisu",
    "noodles ramen dumplings broth wok soy bamboo chopsticks",
    "burger fries cheeseburger milkshake drive-in ketchup onion grill",
    "cake bakery croissant pastry bread frosting cupcake oven",
    "fruit mango strawberry orange grapes banana melon peach",
    "supermarket grocery vegetables eggs rice butter basket checkout",
    "fitness gym workout treadmill dumbbell yoga stretching trainer",
    "running marathon sneakers sprint jogging pace track stopwatch",
    "football goal striker stadium league keeper penalty derby",
    "basketball dunk rebound court playoffs hoop guard dribble",
    "cycling bicycle helmet pedal saddle peloton gears tyre",
    "swimming pool goggles freestyle diving lifeguard lane splash",
    "train railway ticket station carriage platform timetable express",
    "flight airline airport boarding luggage runway pilot terminal",
    "hotel resort suite reception breakfast balcony booking lobby",
    "taxi ride driver fare pickup sedan dashboard commute",
    "beach island snorkel sunset coral lagoon hammock palm",
    "hiking trail summit backpack forest ridge compass tent",
    "movie cinema director actor thriller premiere trailer popcorn",
    "music concert guitar album melody singer drums festival",
    "games console puzzle arcade quest level joystick player",
    "books novel library author chapter poetry bookshop fiction",
    "painting museum gallery canvas sculpture portrait sketch exhibition",
    "phone smartphone battery charger screen camera earphones wireless",
    "computer laptop keyboard monitor processor software mouse printer",
    "fashion dress skirt blouse wardrobe runway-show designer silk",
    "shoes boots sandals heels leather laces loafers slippers",
    "makeup lipstick mascara perfume skincare blush serum lotion",
    "baby stroller diaper crib pacifier toddler lullaby nursery",
    "pets puppy kitten leash veterinarian aquarium parrot kennel",
    "garden tulips seeds compost greenhouse lawn roses shovel",
    "furniture sofa bookshelf mattress wooden lamp curtain carpet",
    "school homework teacher exam maths lesson pupils classroom",
    "health doctor clinic pharmacy vaccine checkup nurse vitamins",
    "bank savings deposit interest account branch statement withdrawal",
    "insurance policy claim premium coverage accident insurer deductible",
    "stocks fund investor dividend portfolio bonds market broker",
    "electricity bill meter water gas utility invoice heating",
)
_WORDS = len(TOPICS[0].split())
# From the least to the greatest quality.
_TONES = ("basic", "simple", "ordinary", "decent", "good", "great", "excellent", "superb")
# What the items of a scenario are, in the order of the paper's list.
KINDS = ("advertisement", "voucher", "program", "article", "video")
_SEPARATOR = ";"
_ENTITIES = 3
_QUERIES = 2


class Texts:
    """The texts of the items and users of a world.

    Args:
        world: It has `len(TOPICS)` categories.
        scene: Number of each item's scenario.
        random: What each item's own words are drawn from.
    """

    def __init__(self, world: World, scene: np.ndarray, random: np.random.Generator):
        self._words = pa.array([word for topic in TOPICS for word in topic.split()])
        self._triples = np.array(list(itertools.combinations(range(_WORDS), _ENTITIES)))
        self._topic, self._scene = world.item_category, scene
        own = random.integers(0, _WORDS, (2, len(scene)), dtype=np.int16)
        self._own = own + np.int16(_WORDS) * self._topic.astype(np.int16)
        order = np.argsort(np.argsort(world.item_quality, kind="stable"), kind="stable")
        self._tone = (order * len(_TONES) // len(scene)).astype(np.int8)

    def titles(self, items: np.ndarray) -> pa.Array:
        """The title of each item: a word for its quality, two of its topic, and what it is."""
        return pc.binary_join_element_wise(
            pa.array(_TONES).take(pa.array(self._tone[items])),
            *(self._words.take(pa.array(own[items])) for own in self._own),
            pa.array(KINDS).take(pa.array(self._scene[items])),
            " ",
        )

    def entities(self, items: np.ndarray, random: np.random.Generator) -> pa.Array:
        """Names in each item, drawn anew for each row: three words of its topic."""
        chosen = self._triples[random.integers(0, len(self._triples), len(items))]
        return self._joined(self._topic[items][:, None] * _WORDS + chosen)

    def queries(self, interests: np.ndarray, random: np.random.Generator) -> pa.Array:
        """What each user searched for: two words of each interest `(users, interests)`."""
        chosen = random.integers(0, _WORDS, (*interests.shape, _QUERIES))
        return self._joined((interests[:, :, None] * _WORDS + chosen).reshape(len(interests), -1))

    def _joined(self, words: np.ndarray) -> pa.Array:
        columns = (self._words.take(pa.array(column)) for column in words.T)
        return pc.binary_join_element_wise(*columns, _SEPARATOR)
