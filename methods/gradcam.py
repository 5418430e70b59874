"""Grad-CAM, by pytorch-grad-cam."""

from pytorch_grad_cam.grad_cam import GradCAM as LibraryGradCAM

from methods._cam import CAM


class GradCAM(CAM):
    """Grad-CAM at the backbone's CAM layer."""

    label = "Grad-CAM"
    paper = "Selvaraju et al. 2017, ICCV, arXiv 1610.02391"
    cam = LibraryGradCAM
