"""The sentences of the MiniLM study: pairs that say the same, and others to calibrate with."""

from __future__ import annotations

from typing import NamedTuple


class Pair(NamedTuple):
    """Two sentences that say the same, and what they are about."""

    topic: str
    first: str
    second: str


# Topics alternate, so that the first few pairs already have several.
PAIRS = (
    Pair(
        "weather",
        "It has been raining since early this morning.",
        "The rain started at dawn and has not stopped.",
    ),
    Pair(
        "cooking",
        "Let the dough rest for an hour before you bake the bread.",
        "The bread dough should stand for sixty minutes and then go into the oven.",
    ),
    Pair(
        "computers",
        "The adder overflows because the register is too narrow.",
        "A register with too few bits makes the sum overflow.",
    ),
    Pair(
        "travel",
        "Our train to Vienna leaves from platform nine.",
        "We depart for Vienna by rail on track 9.",
    ),
    Pair(
        "health",
        "The doctor told him to sleep more and drink less coffee.",
        "He was advised by his physician to rest longer and cut down on caffeine.",
    ),
    Pair(
        "animals",
        "A black cat is sleeping on the warm roof of the car.",
        "On top of the warm car a black cat has fallen asleep.",
    ),
    Pair(
        "music",
        "She plays the cello in a small orchestra.",
        "A small orchestra has her as one of its cellists.",
    ),
    Pair(
        "money",
        "Interest rates were raised again to slow down inflation.",
        "To fight rising prices the central bank made borrowing dearer once more.",
    ),
    Pair(
        "weather",
        "Tomorrow will be sunny with a light wind from the south.",
        "The forecast for the next day is clear skies and a gentle southerly breeze.",
    ),
    Pair(
        "cooking",
        "This soup needs more salt and a little lemon juice.",
        "Add some salt and a splash of lemon to the soup.",
    ),
    Pair(
        "computers",
        "My laptop does not turn on since the last update.",
        "After I installed the update the notebook no longer starts.",
    ),
    Pair(
        "travel",
        "The hotel room had a view of the sea.",
        "From our room in the hotel we could look out over the ocean.",
    ),
    Pair(
        "health",
        "Regular exercise lowers the risk of heart disease.",
        "People who train often are less likely to have trouble with their heart.",
    ),
    Pair(
        "animals",
        "Whales swim thousands of kilometres to warmer waters every winter.",
        "Each winter the whales migrate over a great distance to a warmer sea.",
    ),
    Pair(
        "music",
        "The concert was sold out within ten minutes.",
        "All tickets for the show were gone in ten minutes.",
    ),
    Pair(
        "money",
        "He lost his wallet with all his credit cards.",
        "His purse is gone, and every bank card was in it.",
    ),
    Pair(
        "weather",
        "Heavy snow has closed the road over the pass.",
        "The mountain road is shut because of deep snow.",
    ),
    Pair(
        "cooking",
        "Vegetables keep their colour if you boil them only briefly.",
        "Cook greens for a short time and they stay bright.",
    ),
    Pair(
        "computers",
        "Training a neural network takes a lot of electricity.",
        "It costs much energy to teach a deep learning model.",
    ),
    Pair(
        "travel",
        "Is there a bus from the airport to the city centre?",
        "How can I get downtown from the airport by bus?",
    ),
    Pair(
        "health",
        "The child has a fever and a sore throat.",
        "The little girl's throat hurts and her temperature is high.",
    ),
    Pair(
        "animals",
        "The farmer's dog keeps the sheep together.",
        "Sheep are herded by the dog of the farm.",
    ),
    Pair(
        "music",
        "He learned to play the guitar by watching videos.",
        "Online clips taught him how to play guitar.",
    ),
    Pair(
        "money",
        "The company made less profit this year than last year.",
        "Earnings of the firm fell compared with the previous year.",
    ),
)

CALIBRATION = (
    "The museum opens at ten and is closed on Mondays.",
    "Please send me the signed contract before the end of the week.",
    "Photosynthesis turns light, water and carbon dioxide into sugar.",
    "They won the match with a goal in the last minute!",
    "Who wrote the novel that we talked about yesterday?",
    "An accumulator with 16 bits holds numbers from -32768 to 32767.",
    "The old bridge across the river will be replaced by 2031.",
    "I would like to change my password, but the page does not load.",
    "Tea grows best on cool, wet slopes high above the sea.",
    "Her grandmother knitted a red scarf for each of the seven children.",
    "Prices in euros include taxes; delivery is free within the country.",
    "When the moon covers the sun, birds fall silent for a while.",
)
