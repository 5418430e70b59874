"""Grad-CAM++, by pytorch-grad-cam."""

from pytorch_grad_cam.grad_cam_plusplus import GradCAMPlusPlus as LibraryGradCAMPlusPlus

from methods._cam import CAM


class GradCAMPlusPlus(CAM):
    """Grad-CAM++ at the backbone's CAM layer."""

    label = "Grad-CAM++"
    paper = "Chattopadhay et al. 2018, WACV, arXiv 1710.11063"
    cam = LibraryGradCAMPlusPlus
