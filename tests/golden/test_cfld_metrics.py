"""Metrics against the authors' code (golden case cfld/metrics)."""

from pgpis_models.metrics import papers_resize_quantise, psnr, ssim_gauss, ssim_win51
from training.evaluation.frechet import frechet_distance, inception_input


def test_every_metric_equals_the_authors(load_case, compare):
    golden, info = load_case("cfld", "metrics")
    config, target, prediction = info["config"], golden["in.gt"], golden["in.pred"]
    assert config["ssim_win51"]["win_size"] == 51 and config["ssim_gauss_255"]["sigma"] == 1.5
    fid = golden["out.fid"]
    distance = fid.new_tensor([frechet_distance(golden["in.features_real"], golden["in.features_fake"])])
    ours = {
        "out.psnr": psnr(prediction, target, data_range=config["psnr"]["data_range"])[:, None],
        "out.ssim_win51": ssim_win51(prediction, target, data_range=config["ssim_win51"]["data_range"])[:, None],
        "out.ssim_gauss_255": ssim_gauss(prediction, target, data_range="prediction")[:, None],
        "out.inception_input": inception_input(target[:1]),
        "out.resized_quantised": papers_resize_quantise(golden["in.generated"], config["eval_size"]),
        "out.fid": fid + (distance - fid) / fid,  # the tolerance is relative
    }
    compare(ours, golden, {
        "out.psnr": 1e-5, "out.ssim_*": 1e-5, "out.fid": 1e-6, "out.inception_input": 1e-5,
        "out.resized_quantised": 1e-7,
    })
