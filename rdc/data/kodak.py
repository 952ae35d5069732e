"""The 24 Kodak images, 768x512 or 512x768, released by Eastman Kodak for unrestricted usage."""

from __future__ import annotations

# Of the PNG files, as they have been distributed for two decades.
FILE_SHA256 = {
    "kodim01.png": "a56e27cbf5f843c048b6af1d6e090760e9c92fadba88b7dee0205918a37523bd",
    "kodim02.png": "4f4b74a79237e311d72cad958237b5f7088d8bce1c82305ebefe1a70e3022dfd",
    "kodim03.png": "e25ca1ff2f0c0cb5fdfd5f9b0a0bb21ac4c3de3c84a67f35b09a85d3306249db",
    "kodim04.png": "e3b946107c5d3441c022f678d0c3caf1e224d81b1604ba840a4f88e562de61aa",
    "kodim05.png": "10349e963c5c813d327852f82c1795fa4148d69fedffc4c589bee458e3ac3d53",
    "kodim06.png": "363510303b715d4cbc384e1ce227e466b613a09e1b71ae985882bf8e7fbd9b18",
    "kodim07.png": "b77d3f006f42414bb242222e0482e750c0fb9e5ee8d4bed2f6f11c5605fe54a4",
    "kodim08.png": "ba23983c76b4832ee0e8af0592664756841a16779acd69f792e268fb6d13d6e7",
    "kodim09.png": "6a4361c2fc194feb4edaa9f9a4a0620fb9943e460ac7fdf037fb0f6dd6607a7d",
    "kodim10.png": "9dfb70f5867c29ff9ed6313683f19b3d867849e40fbc0c4c54a4a89df341cf23",
    "kodim11.png": "7936814b58b5387fce2e4e2488b4ec830dadd95fa9520f358ddb30990b50f2b6",
    "kodim12.png": "d78c37c2f04f23761ed2367dd77e2db584ddd4c3950833fecf89f199a8126980",
    "kodim13.png": "bc34a3ce58dea09dce1704c997171602de90cb34d0c8503a988b77f473d39b08",
    "kodim14.png": "55a94550ff18f3246c4074fd32b77b0c74447c26b6ad274d564d999c0450ba6e",
    "kodim15.png": "7538cbb80cb9103606c48b806eae57d56c885c7f90b9b3be70a41160f9cbb683",
    "kodim16.png": "a89c7268ccd4718ba424a99fc4643c572cf692ca6eae887185ceb4e9f11d2e54",
    "kodim17.png": "37afcc89fbdcb76d9518e04b2fc011027e2f4cd14b3b2f83cefd721641a47c5b",
    "kodim18.png": "1a9258c365988961d87a0598725b609139c303ad48a5aad6c503c3b1a87849aa",
    "kodim19.png": "b7450b264b1b0a411390d8931b112c27905a992520fc90569dc4b920aa32bbdc",
    "kodim20.png": "3b46c71e3b92a563820ba32936be8330c586c41f938efd94be938386aae4328a",
    "kodim21.png": "ac958597c82073f6bb65129c68f72b651db5b9efd82e11547d07350214bc268b",
    "kodim22.png": "1cee58eb1f2d9c7ebb254d208a03c783ce6cf2c4d8c2cf45e235dd23b4ce1b29",
    "kodim23.png": "e3111a2fd4da24af15d6459ef9eacfe54106b38e27b4a21821b75c3f5d2d5baf",
    "kodim24.png": "1071c68372cc5a01435c2c225a5cf7d4bb803846ec08bb6b3d6721b156d7cb96",
}

# Of their decoded pixels (rdc.data.images.pixel_sha256): the same for a copy in another lossless format.
PIXEL_SHA256 = {
    "kodim01.png": "6c7c9230bd197b1537bece98df875720e39d1be22e0494503536b14b9a9b1043",
    "kodim02.png": "c70e58cc2ad64baf6df5d48295f749ebe96c3b3185364818f2eab115eaaddfa1",
    "kodim03.png": "d6212d4bb2862c211fa4aa1ec4d12dfbe48c76443411592d820aa107e12ff825",
    "kodim04.png": "3cc6b00671ebf6e695f9097bacc0c51e105b05dc140170d78324c999c9fedc06",
    "kodim05.png": "e195b3431ed95ab0d4b1f2039d41f88e4177160d27cf25a3bb348a0b90ba2dc8",
    "kodim06.png": "e8f0b50000f3fe31318cd7788c8034e0120398197c9f8f6e8dcd49322d595e0b",
    "kodim07.png": "ccd0736253e3e530e9c565a1e037d40635bae5674bd78e350b657bbe081c197f",
    "kodim08.png": "125c4480b3266fc54033df8009cd598e54a3aa5552ba2cb7e4dd5e01b09b796d",
    "kodim09.png": "7b79e0f5a3d9e4b98f146be77e435fc10e749b8ca600a76f25ca680a3018475c",
    "kodim10.png": "7cdfd41372a09e2ab60bb4d30f9656f1864ed4b965db8627a92c89f23eb09878",
    "kodim11.png": "e41b815579fe26868fc937ea888775e5926d4a89158e5e9f5419ee39af02b2fc",
    "kodim12.png": "3553a3cd2293921d59a12c4e600364756932f8da57ad3006aec53a1c7861e22f",
    "kodim13.png": "53c7dc5c7e0f9d722cb1dc7cc1d542a0408be318f4704ab3235faee4f29dc69b",
    "kodim14.png": "cc5f88d54b97f9fc1ec84ddac4cacc1df94d93c4aa33c1a8013401caf1d551b9",
    "kodim15.png": "9a5e77b7429650c1a5ce976a6944cd14d10299c5bc69d1b5f39882e3da659578",
    "kodim16.png": "d12d65d166243db424824d5bc748029a2713668ce088b78c95a3f17029f162a4",
    "kodim17.png": "eef319cc9ef9eddc4d3adc5bd99562ed819218db248cf6df47a733e8cd70fa91",
    "kodim18.png": "a415cf67f845dbd3780461d2068bd21446f9f2ae25f6da78e3a7024ec0c20fe9",
    "kodim19.png": "ef2fab96ebc7b256b7488148d6cc1b037cc1d418f5c3e865a3052a2405e1a718",
    "kodim20.png": "5257e6846990df40507de4bd73ffbf4d4ddb286b70591c340261020be8652316",
    "kodim21.png": "faa4aa1dbfddfa8f5daffd12f03a1922b04077c68085114ed1d8782cc5da9b46",
    "kodim22.png": "fca2de3197b5076eaba1e0d430daab11472fb8a0f9bf9ca37b4fa11e20c1abf0",
    "kodim23.png": "0639ee5ecf10ec9c74c23cc18a3ca74662f91055ca1b35321b8b06179aafb43f",
    "kodim24.png": "5a0c71bca503d4da0abf74002cb30c97201b4ba59183c7d2c89e40f95bb6bbde",
}

# Where the files have been published since the nineties; every file is checked, so plain http does no harm.
BASE_URLS = ("http://r0k.us/graphics/kodak/kodak", "https://r0k.us/graphics/kodak/kodak")
