from marco_data.shards import hashed_split


def share(names_and_ids, eval_share):
    drawn = [hashed_split(name, image_id, eval_share) for name, image_id in names_and_ids]
    return drawn.count("eval") / len(drawn)


def test_a_plate_goes_into_one_split_whatever_the_image():
    for plate in range(50):
        drawn = {hashed_split(f"{plate:04x}_A{well}_ImagerDefaults_{well}.jpg", well, 0.5) for well in range(1, 13)}
        assert len(drawn) == 1


def test_shares_are_kept_to_within_four_standard_deviations():
    images = [(f"image-{number}.png", number) for number in range(4000)]
    plates = [(f"{number:04x}_A1_ImagerDefaults_1.jpg", 1) for number in range(4000)]
    for eval_share in (0.1, 0.5):
        spread = (eval_share * (1 - eval_share) / 4000) ** 0.5
        assert abs(share(images, eval_share) - eval_share) < 4 * spread
        assert abs(share(plates, eval_share) - eval_share) < 4 * spread


def test_a_larger_share_only_adds_to_the_evaluation_set():
    for number in range(300):
        name = f"image-{number}.png"
        assert hashed_split(name, number, 0.2) == "train" or hashed_split(name, number, 0.4) == "eval"
